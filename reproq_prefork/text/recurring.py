"""Trouble that comes again and again is warned of at first, and then ever more rarely.

Thirty-two workers that cannot connect would otherwise write ten lines a second until somebody looks, and hide
what else is in the log. What is not warned of is written at the level DEBUG, so nothing is hidden from whoever
asks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from reproq_prefork.text.log import Log

FIRST_INTERVAL_S = 30.0  # between the first warning and the second; each interval after is twice as long
LONGEST_INTERVAL_S = 600.0
CALM_S = 120.0  # trouble that stays away for so long is new when it comes again


@dataclass(slots=True)
class _Course:
    """Of one kind of trouble; times are the clock's."""

    warn_at: float
    interval_s: float
    came_at: float
    unwarned: int = 0  # times since the last warning


class Recurring:
    """Warns of trouble on behalf of one process. The message is what makes two troubles the same kind."""

    def __init__(self, log: Log, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._courses: dict[str, _Course] = {}

    def warning(self, message: str, /, **fields: object) -> None:
        """`times` in a line says how often it came since the line before; `fields` are of the last time."""
        now = self._clock()
        course = self._courses.get(message)
        if course is None or now - course.came_at > max(CALM_S, course.interval_s):
            self._courses[message] = _Course(now + FIRST_INTERVAL_S, FIRST_INTERVAL_S, now)
            self._log.warning(message, **fields)
            return
        course.came_at = now
        course.unwarned += 1
        if now < course.warn_at:
            self._log.debug(message, **fields)
            return
        course.interval_s = min(2 * course.interval_s, LONGEST_INTERVAL_S)
        course.warn_at = now + course.interval_s
        self._log.warning(message, **fields, times=course.unwarned)
        course.unwarned = 0
