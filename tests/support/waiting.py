"""Waiting for a condition with a deadline: a test never sleeps for luck."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

# To look takes work too (a query, all of /proc, a script in a browser), which what is waited for could use: so the
# longer it has taken, the longer until the next look.
SHORTEST_PAUSE_S = 0.01
LONGEST_PAUSE_S = 0.1
PAUSE_SHARE = 0.1  # of the time waited so far

T = TypeVar("T")


def wait_until(condition: Callable[[], T], timeout_s: float, describe: str) -> T:
    """Poll until `condition()` is true, and return what it returned.

    Raises AssertionError after `timeout_s`, with the last value seen; `describe` completes "waited for …".
    An exception of `condition` passes through: a condition that may fail says so by its value.
    """
    began_s = time.monotonic()
    while True:
        value = condition()
        if value:
            return value
        waited_s = time.monotonic() - began_s
        if waited_s >= timeout_s:
            raise AssertionError(f"waited {timeout_s:g} s for {describe}; last seen: {value!r}")
        time.sleep(min(max(SHORTEST_PAUSE_S, waited_s * PAUSE_SHARE), LONGEST_PAUSE_S))
