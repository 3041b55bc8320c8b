"""A limit on how long user code may take in the main thread of a process of ours."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType

AGAIN_S = 1.0  # the limit is enforced again after so long, for code that catches everything


class TookTooLong(BaseException):
    """Raised in code that is past its limit. Not an Exception, so that code seldom swallows it."""


@contextlib.contextmanager
def time_limit(seconds: float, *, report: Callable[[str], object]) -> Iterator[None]:
    """End the block after `seconds`, by an exception in it that does not leave the block. Call `report` then.

    Uses ITIMER_REAL. Code that runs no Python is not interrupted.
    """

    def interrupt(_signum: int, _frame: FrameType | None) -> None:
        raise TookTooLong

    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_S)
        yield
    except TookTooLong:
        report(f"was ended after {seconds:g} s")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
