"""The runs that a worker has claimed together: the ended ones, the one that it executes, and the waiting ones."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from reproq_prefork.model.run import ClaimedRun
from reproq_prefork.model.settlement import Settlement, handed_back
from reproq_prefork.unix.orders import Orders
from reproq_prefork.unix.scoreboard import boottime_ns
from reproq_prefork.worker.batch_size import BATCH_STRETCH_S, MAX_RESULT_BYTES_HELD
from reproq_prefork.worker.database import Ledger


class Batch:
    """`claimed_ns`: when the runs were claimed. `overdue_ns`: until when they may start. Both are CLOCK_BOOTTIME.

    The batch is also the `Errands` of the watch of each of its tasks.
    """

    def __init__(self, runs: Sequence[ClaimedRun], ledger: Ledger, *, claimed_ns: int) -> None:
        self.claimed_ns = claimed_ns
        self.overdue_ns = claimed_ns + int(BATCH_STRETCH_S * 1e9)
        self.is_shared = len(runs) > 1
        self.name = str(runs[0].id) if len(runs) == 1 else f"{runs[0].id} and {len(runs) - 1} more"
        self.started = 0
        self.succeeded: list[int] = []  # in a shared batch, whose runs are logged together
        self._ledger = ledger
        self._runs = runs
        self._waiting = deque(runs)
        self._ended: list[Settlement] = []
        self._result_bytes = 0
        self._is_put_aside = not self.is_shared
        self.due_ns = 0
        self._plan()

    @property
    def waiting(self) -> int:
        """How many runs have not started yet."""
        return len(self._waiting)

    def next(self, orders: Orders) -> ClaimedRun | None:
        """The next run to execute. None: there is none, or the rest must be handed back."""
        if not self._waiting:
            return None
        if self.started and (
            orders.drain or self._result_bytes > MAX_RESULT_BYTES_HELD or boottime_ns() >= self.overdue_ns
        ):
            return None
        self.started += 1
        return self._waiting.popleft()

    def ended(self, settlement: Settlement) -> None:
        self._ended.append(settlement)
        result = settlement.result
        if result is not None:
            self._result_bytes += len(result)

    def not_started(self, settlement: Settlement) -> None:
        """The run is handed back, and so are the runs that wait behind it."""
        self.started -= 1
        self._ended += [settlement, *(handed_back(*run.token) for run in self._waiting)]
        self._waiting.clear()

    def to_be_recorded(self) -> Sequence[Settlement]:
        """The ends that are not recorded yet, and the runs to hand back."""
        return [*self._ended, *(handed_back(*run.token) for run in self._waiting)]

    def do_errands(self) -> None:
        """Do what is due while a task runs: hand back the runs that wait, and look for unknown claims."""
        if not self._is_put_aside and boottime_ns() >= self.overdue_ns:
            self._is_put_aside = True
            self.put_aside()
        if self._ledger.asks_amid_task_in_s <= 0:
            self._ledger.ask_amid_task({run.token for run in self._runs})
        self._plan()

    def _plan(self) -> None:
        ask_in_s = self._ledger.asks_amid_task_in_s
        ask_ns = 0 if ask_in_s == math.inf else boottime_ns() + int(ask_in_s * 1e9)
        overdue_ns = 0 if self._is_put_aside else self.overdue_ns
        self.due_ns = min(ask_ns or overdue_ns, overdue_ns or ask_ns)

    def put_aside(self) -> None:
        """Record the ended runs and hand back the waiting ones now, because the current run delays both.

        If this fails, they are recorded at the end of the batch. None of the waiting runs is started.
        """
        held = self.to_be_recorded()
        if held and self._ledger.record(held):
            self._ended.clear()
            self._waiting.clear()
