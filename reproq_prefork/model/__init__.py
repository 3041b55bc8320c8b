"""The values that all parts use: a run, its outcome, and what is written about it.

May import `spec`, `text` and errors.
"""
