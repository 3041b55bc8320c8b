"""Python functions as tasks: the decorator, the loader, the call.

May import `store` (to enqueue) and what is below it.
"""
