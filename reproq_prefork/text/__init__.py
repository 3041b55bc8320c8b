"""Text for people: log lines, printable values, redacted secrets, durations.

May import nothing but errors.
"""
