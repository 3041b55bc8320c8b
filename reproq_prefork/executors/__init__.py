"""The ways to run a task: a claimed run goes in, a report comes out.

May import `unix`, `tasks` and what is below them, never `store`.
"""
