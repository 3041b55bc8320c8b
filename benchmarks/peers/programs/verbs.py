"""The command line of a peer's program, as `peers/peer.py` describes it. Standard library only."""

from __future__ import annotations

import json
import os
import sys
import time

STARTS_FILE = "BENCH_STARTS"
BODIES_FILE = "BENCH_BODIES"
BODY_S = 0.2


def note_start(number: int) -> None:
    """Write down when the body of task `number` started; the measurement names the file."""
    started_at = time.time()
    with open(os.environ[STARTS_FILE], "a") as starts:  # noqa: PTH123
        starts.write(f"{number} {started_at!r}\n")


def body(number: int) -> None:
    """A task of a storm: a line when it begins, one when it ends, and some work between them."""
    _line("start", number)
    time.sleep(BODY_S)
    _line("end", number)


def _line(moment: str, number: int) -> None:
    at = time.clock_gettime(time.CLOCK_BOOTTIME)
    log = os.open(os.environ[BODIES_FILE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(log, f"{moment} {number} {os.getpid()} {os.getppid()} {at:.6f}\n".encode())
    os.close(log)


def produce(enqueue_one, count: int, pause_s: float, first: int = 0) -> None:
    """Call `enqueue_one(number)` and write when it came back, `pause_s` after the one before."""
    lines = []
    for number in range(first, first + count):
        began_at = time.time()
        enqueue_one(number)
        lines.append(f"{number} {began_at!r} {time.time()!r}")
        if pause_s:
            time.sleep(pause_s)
    print("\n".join(lines))


def span(done: int, first: float, last: float) -> None:
    """The answer to `watch`."""
    print(json.dumps({"done": done, "seconds": last - first}))


def main(**verbs) -> None:
    """Each verb is a function of the words after it."""
    verb, *words = sys.argv[1:]
    verbs[verb](*words)
