"""Waiting for a condition with a deadline: a test never sleeps for luck."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

POLL_INTERVAL_S = 0.01

T = TypeVar("T")


def wait_until(condition: Callable[[], T], timeout_s: float, describe: str) -> T:
    """Poll until `condition()` is true, and return what it returned.

    Raises AssertionError after `timeout_s`, with the last value seen; `describe` completes "waited for …".
    An exception of `condition` passes through: a condition that may fail says so by its value.
    """
    deadline_s = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline_s:
            raise AssertionError(f"waited {timeout_s:g} s for {describe}; last seen: {value!r}")
        time.sleep(POLL_INTERVAL_S)
