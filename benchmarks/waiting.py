"""Waiting for a condition, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable

DEADLINE_S = 120.0


class TookTooLong(RuntimeError):
    def __init__(self, what: str, deadline_s: float) -> None:
        super().__init__(f"{what} took more than {deadline_s:g} s")


def wait_until(
    is_so: Callable[[], bool], what: str, *, pause_s: float = 0.05, deadline_s: float = DEADLINE_S
) -> None:
    gives_up_at = time.monotonic() + deadline_s
    while not is_so():
        if time.monotonic() > gives_up_at:
            raise TookTooLong(what, deadline_s)
        time.sleep(pause_s)
