"""Warns of repeated trouble at first, and then less and less often.

Otherwise, thirty-two workers that cannot connect would write ten lines a second until somebody looks, and hide the
rest of the log. The other occurrences are logged at the level DEBUG, so that level shows everything.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from reproq_prefork.text.log import Log

FIRST_INTERVAL_S = 30.0  # between the first warning and the second; each later interval is twice as long
LONGEST_INTERVAL_S = 600.0
CALM_S = 120.0  # trouble that did not occur for so long counts as new


@dataclass(slots=True)
class _Course:
    """One kind of trouble. The times are from the clock."""

    warn_at: float
    interval_s: float
    came_at: float
    unwarned: int = 0  # occurrences since the last warning


class Recurring:
    """Warns of trouble for one process. Troubles with the same message are of the same kind."""

    def __init__(
        self,
        log: Log,
        *,
        first_interval_s: float = FIRST_INTERVAL_S,
        longest_interval_s: float = LONGEST_INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._first_interval_s = first_interval_s
        self._longest_interval_s = longest_interval_s
        self._clock = clock
        self._courses: dict[str, _Course] = {}

    def warning(self, message: str, /, **fields: object) -> None:
        """`times` in a line: how often it came since the previous line. `fields` are those of the last time."""
        now = self._clock()
        course = self._courses.get(message)
        if course is None or now - course.came_at > max(CALM_S, course.interval_s):
            self._courses[message] = _Course(now + self._first_interval_s, self._first_interval_s, now)
            self._log.warning(message, **fields)
            return
        course.came_at = now
        course.unwarned += 1
        if now < course.warn_at:
            self._log.debug(message, **fields)
            return
        course.interval_s = min(2 * course.interval_s, self._longest_interval_s)
        course.warn_at = now + course.interval_s
        self._log.warning(message, **fields, times=course.unwarned)
        course.unwarned = 0
