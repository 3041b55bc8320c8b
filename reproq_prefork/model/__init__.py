"""The values that everything speaks of: a run, its outcome, what is written about it.

May import `spec`, `text` and errors.
"""
