"""The only place that forks, sends signals and shares memory.

May import `model`, `text` and errors, never `store`.
"""
