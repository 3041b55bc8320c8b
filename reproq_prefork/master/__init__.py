"""The loop of the master: events in, actions out.

May import `fleet`, `unix` and the values below them, never `store`.
"""
