"""`reproq-prefork demo`: the whole engine at work on a private PostgreSQL, a crash included.

Nothing is staged: the supervisor, the kill, the replays and the numbers are real. `example` is the program that
the tasks run, `stage` what is set up for them and taken away again, `story` what happens in between.
"""

from reproq_prefork.demo.screen import Screen
from reproq_prefork.demo.stage import DemoFailed
from reproq_prefork.demo.story import run_demo

__all__ = ["DemoFailed", "Screen", "run_demo"]
