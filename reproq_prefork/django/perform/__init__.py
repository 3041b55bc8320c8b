"""How a worker executes a Django task.

May import `families` and `project`.
"""
