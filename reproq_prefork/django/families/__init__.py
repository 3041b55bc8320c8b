"""The differences between Django's own tasks and the backport: classes, signals, results.

May import Django and what is below `django`.
"""
