"""Polls for all workers of the host: due runs, ends to announce, cancels."""

from __future__ import annotations

import time
from collections.abc import Callable

from reproq_prefork.steward.notice_cancels import NoticeCancels
from reproq_prefork.steward.workers import live_workers_of
from reproq_prefork.store.steward_store import (
    StewardStore,
)
from reproq_prefork.unix.scoreboard import Scoreboard

CLOSE_LOOK_S = 0.02


class LookForWork:
    """Looks for work for the whole host. It finds scheduled runs, and whatever a notification did not report.

    `announces`: the workers of the host announce ends, so this looks for ends to announce too.
    """

    def __init__(
        self,
        scoreboard: Scoreboard,
        steward: int,
        *,
        period_s: float,
        announces: bool,
        wake: Callable[[], None],
        wake_one: Callable[[], None],
        cancels: NoticeCancels,
    ) -> None:
        self.period_s = self._longest_period_s = period_s
        self.looked_at = 0.0  # monotonic seconds
        self.announced_share = 0.0  # which share of the server's notification queue is in use
        self._scoreboard = scoreboard
        self._steward = steward
        self._announces = announces
        self._wake = wake
        self._wake_one = wake_one
        self._cancels = cancels

    def look_closely(self) -> None:
        """Begin with short periods. Each is twice as long as the one before, up to the normal one."""
        self.period_s = min(CLOSE_LOOK_S, self._longest_period_s)

    def run(self, store: StewardStore) -> None:
        self.period_s = min(2 * self.period_s, self._longest_period_s)
        self.looked_at = time.monotonic()
        workers = live_workers_of(self._scoreboard, self._steward)
        seen = store.look([record.worker_id for record in workers.values()], announces=self._announces)
        self.announced_share = seen.announced_share
        if seen.runs_are_due:
            self._wake()
        elif seen.is_finish_due:
            self._wake_one()
        self._cancels.tell(workers, seen.to_cancel)
