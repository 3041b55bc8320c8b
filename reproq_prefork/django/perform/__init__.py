"""How a worker runs a Django task.

May import `families` and `project`.
"""
