"""The stock of the shop under a seeded scheduler with virtual time, on real engines.

Read `seed` first (what happens in one seed), then `node` (where faults strike), then `judge` and
`audit_sql` (what must be so). `loadtests/simulate.py` is its face.
"""
