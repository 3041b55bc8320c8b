"""`reproq-prefork demo`: the whole worker at work on a private PostgreSQL, with a crash.

Nothing is faked: the supervisor, the kill, the replays and the numbers are real. `example` is the program that the
tasks run. `stage` sets everything up and removes it. `story` is what happens in between. May import
every folder but `cli`.
"""

from reproq_prefork.demo.screen import Screen
from reproq_prefork.demo.stage import DemoFailed
from reproq_prefork.demo.story import run_demo

__all__ = ["DemoFailed", "Screen", "run_demo"]
