"""Announces the ends of runs that no task process has announced, such as killed and cancelled runs.

Taking an end sets it due again a minute later. So if the worker dies, or the application fails, it is announced
once more. The announcement runs code of the application, so it has a deadline and cannot end the worker.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Protocol

from reproq_prefork.executors.contract import Executor, NoProcess, Stop, Watch
from reproq_prefork.text.log import Log
from reproq_prefork.unix.orders import Orders
from reproq_prefork.unix.panel import WorkerPanel
from reproq_prefork.unix.scoreboard import boottime_ns
from reproq_prefork.worker.task_watch import TaskWatch

LOOK_INTERVAL_S = 5.0
ANNOUNCEMENT_TIMEOUT_S = 30.0


class Announcements(Protocol):
    """The part of the ledger that knows which ends must be announced."""

    def take_announcement(self) -> int | None: ...

    def announced(self, run_id: int) -> None: ...


class Announcer:
    def __init__(
        self, *, ledger: Announcements, executor: Executor, panel: WorkerPanel, orders: Orders, log: Log
    ) -> None:
        self._ledger = ledger
        self._executor = executor
        self._panel = panel
        self._orders = orders
        self._log = log
        self._look_at = 0.0

    @property
    def is_due(self) -> bool:
        """It is time to look for ends to announce."""
        return self._executor.announces and time.monotonic() >= self._look_at

    def announce_due_ends(self, *, all_there_are: bool) -> None:
        """Announce one end, or all ends. The worker must hold no run. Raises as an executor does."""
        while not self._orders.drain:
            run_id = self._ledger.take_announcement()
            if run_id is None:
                break
            why_not = self._announce(run_id)
            if why_not is None:
                self._ledger.announced(run_id)
            else:
                self._log.warning(f"the end of run {run_id} could not be announced", reason=why_not)
            if not all_there_are:
                break
        self._look_at = time.monotonic() + LOOK_INTERVAL_S * random.uniform(0.75, 1.25)

    def _announce(self, run_id: int) -> str | None:
        deadline_ns = boottime_ns() + int(ANNOUNCEMENT_TIMEOUT_S * 1e9)
        watch = _ShowingLife(TaskWatch(self._panel, self._orders, deadline_ns=deadline_ns), self._panel)
        try:
            return self._executor.announce(run_id, watch)
        except NoProcess as reason:
            return str(reason)


class _ShowingLife:
    """A watch for a worker that executes no task: its master expects signs of life."""

    def __init__(self, watch: Watch, panel: WorkerPanel) -> None:
        self._watch = watch
        self._panel = panel

    @property
    def fds(self) -> Sequence[int]:
        return self._watch.fds

    @property
    def deadline_unix_s(self) -> float | None:
        return self._watch.deadline_unix_s

    def wait_s(self) -> float:
        return self._watch.wait_s()

    def tend(self) -> None:
        self._panel.update()
        self._watch.tend()

    def look(self) -> Stop | None:
        return self._watch.look()
