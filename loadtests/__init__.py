"""The crowd: clients of the wire that are not ours, the Locust users, and the drills.

`client` knows PROTOCOL.md and MessagePack and nothing else, so that a mistake of the server's codec
cannot hide in a shared one. `python -m loadtests` lists what there is.
"""
