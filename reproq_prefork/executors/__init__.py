"""A claimed run in, a report out: the ways to run a task.

May import `unix`, `tasks` and what is below them, never `store`.
"""
