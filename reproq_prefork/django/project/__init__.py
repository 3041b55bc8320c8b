"""What is read from a Django project: its settings, its databases, its checks.

May import Django and what is below `django`.
"""
