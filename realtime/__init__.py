"""Sockets, rooms, lanes, ticks, recovery and the broker between nodes.

Knows nothing of shopping, SQL or Starlette. Reading order: `wire` (what the bytes mean), `socket`
(what we need of one), `room` (the lanes and the tick), `hub` (this node's rooms), `broker` (what
joins nodes), `connection` (one viewer). The one seam to the product is `connection.Handler`: a
function that answers a command.
"""
