"""Every rule of supervision, as pure functions over plain data.

May import `model`, `text` and errors. Uses no process, no signal, no database.
"""
