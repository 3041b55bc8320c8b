"""Text for people: log lines, printable values, masked secrets, durations.

May import nothing but errors.
"""
