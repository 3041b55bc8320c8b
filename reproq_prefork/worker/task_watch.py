"""The watch over one running task: its deadline, the worker's lease, and the orders of the master."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from reproq_prefork.executors.contract import Stop
from reproq_prefork.unix.orders import Orders
from reproq_prefork.unix.panel import WorkerPanel
from reproq_prefork.unix.scoreboard import boottime_ns

LOOK_INTERVAL_NS = (
    500_000_000  # the lease changes while a task runs, and nothing wakes the watch when it does
)


class Errands(Protocol):
    """What the worker must do during a task for its other runs."""

    @property
    def due_ns(self) -> int:
        """When there is something to do, by CLOCK_BOOTTIME; 0: nothing to do."""

    def do_errands(self) -> None:
        """Do what is due. Returns soon, whatever happens, and raises nothing."""


class TaskWatch:
    def __init__(
        self,
        panel: WorkerPanel,
        orders: Orders,
        *,
        deadline_ns: int,
        errands: Errands | None = None,
    ) -> None:
        """`deadline_ns`: the deadline of the task, by CLOCK_BOOTTIME; 0: none."""
        self._panel = panel
        self._orders = orders
        self._deadline_ns = deadline_ns
        self._deadline_reported = False  # from then on, the watch does not look again because of it
        self._errands = errands

    @property
    def fds(self) -> Sequence[int]:
        return self._orders.fds

    @property
    def deadline_unix_s(self) -> float | None:
        if not self._deadline_ns:
            return None
        return time.time() + (self._deadline_ns - boottime_ns()) / 1e9

    def wait_s(self) -> float:
        now = boottime_ns()
        end = now + LOOK_INTERVAL_NS
        if self._errands is not None and (due_ns := self._errands.due_ns):
            end = min(end, due_ns)
        if self._deadline_ns and not self._deadline_reported:
            end = min(end, self._deadline_ns)
        # Reading the steward's renewal costs a look at the scoreboard. It can only be later than the claim's own
        # end.
        if self._panel.claimed_lease_end_ns < end:
            end = min(end, self._panel.lease_end_ns())
        return max(0.0, (end - now) / 1e9)

    def is_too_late(self) -> bool:
        """Whether the lease has ended before the task starts, for example because the reply to the claim came
        late.

        Another worker may already have the run.
        """
        now = boottime_ns()
        return now >= self._panel.claimed_lease_end_ns and now >= self._panel.lease_end_ns()

    def tend(self) -> None:
        if self._errands is not None and 0 < self._errands.due_ns <= boottime_ns():
            self._errands.do_errands()

    def look(self) -> Stop | None:
        self._orders.read()
        now = boottime_ns()
        if self._deadline_ns and now >= self._deadline_ns:
            self._deadline_reported = True
        # The lease comes first: after its end a second copy may be running, whatever else is true.
        if self._panel.lease().lost or now >= self._panel.lease_end_ns():
            return Stop.LEASE
        if self._orders.quit:
            return Stop.QUIT
        if self._is_cancelled():
            return Stop.CANCEL
        return Stop.DEADLINE if self._deadline_reported else None

    def _is_cancelled(self) -> bool:
        cancelled = self._panel.lease().cancelled_run
        return cancelled is not None and cancelled == self._panel.record.started_run
