"""A payment provider to try the shop with: a process of its own that speaks a part of Stripe's API.

Nobody imports this package: the shop meets it over HTTP only, through the official SDK, exactly as
it meets Stripe. So nothing here can make the shop's side easier than it is in earnest.
"""
