"""The product: shows, chat, pins and drops; who may do what; the composition root.

The only room that knows both others. Reading order: `PROTOCOL.md` (the wire), `messages` (its
params), `commands` (what a viewer and a host may do), `shows` (a show's states), `counters` (the
pace of numbers), `facts` (what happened without a caller), `api` (what is not live), `app` (all
adapters, on one page).
"""
