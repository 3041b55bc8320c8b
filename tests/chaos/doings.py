"""What the bodies of a storm's Python tasks do, whoever runs them: each page of the diary names the attempt.

`number` is the run's own, and is in no other payload.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from reproq_prefork import Retry
from tests.chaos import pages

FOR_EVER_S = 600.0
HOARD_BYTES = 2 * pages.MEMORY_BYTES


class Attempt(NamedTuple):
    run_id: int
    claim: int
    which: int  # 1 for the first


def nothing(attempt: Attempt, number: int) -> int:
    pages.write("start", attempt.run_id, attempt.claim)
    pages.write("end", attempt.run_id, attempt.claim)
    return number


def work(attempt: Attempt, number: int, seconds: float) -> int:
    pages.write("start", attempt.run_id, attempt.claim)
    pages.beat_for(seconds, attempt.run_id, attempt.claim)
    pages.write("end", attempt.run_id, attempt.claim)
    return number


def work_in_another_session(attempt: Attempt, number: int, seconds: float) -> int:
    pages.write("start", attempt.run_id, attempt.claim)
    pages.in_another_session(seconds, attempt.run_id, attempt.claim)
    pages.write("end", attempt.run_id, attempt.claim)
    return number


def fail(attempt: Attempt, number: int) -> int:
    _about_to_fail(attempt)
    raise LookupError(f"run number {number} fails")


def fail_at_first(attempt: Attempt, number: int) -> int:
    return fail(attempt, number) if attempt.which == 1 else nothing(attempt, number)


def ask_to_be_run_later(attempt: Attempt, number: int, after_s: float) -> int:
    if attempt.which == 1:
        _about_to_fail(attempt)
        raise Retry(f"run number {number} is to be run later", after=after_s)
    return nothing(attempt, number)


def hoard(attempt: Attempt) -> int:
    """Ask for more memory than a task may have."""
    _about_to_fail(attempt)
    return len(b"x" * HOARD_BYTES)


def overrun(attempt: Attempt, number: int) -> None:
    _about_to_fail(attempt)
    time.sleep(FOR_EVER_S + number)


def spoil(attempt: Attempt) -> object:
    """Do the work, and return what is no JSON."""
    _about_to_fail(attempt)
    return object()


def _about_to_fail(attempt: Attempt) -> None:
    pages.write("start", attempt.run_id, attempt.claim)
    pages.write("fail", attempt.run_id, attempt.claim)
