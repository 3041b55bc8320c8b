"""Claim, run, record: what one worker process does, and the template that forks the workers.

May import `executors`, `unix`, `store` and what is below them.
"""
