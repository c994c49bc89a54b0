"""Catalogue, stock, reservations, orders and payments: what a shopkeeper is responsible for.

Knows no sockets, no wire and no rooms: it returns facts, and facts without a caller (a hold that
lapsed, a webhook) wait in the SQL outbox. Reading order: `stock` (the words), `checkout` (a press
of Buy), `stock_redis` (the gate, which answers the crowd), `reservations_sql` (the record, which is
right), `payments` and `orders` (from held to paid), `catalog` (what is for sale).
"""
