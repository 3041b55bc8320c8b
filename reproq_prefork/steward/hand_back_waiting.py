"""Hands back runs that wait behind a long one."""

from __future__ import annotations

from collections.abc import Callable

from reproq_prefork.steward.one_by_one import OneByOne
from reproq_prefork.steward.workers import live_workers_of
from reproq_prefork.store.steward_store import (
    ResetRun,
    StewardStore,
)
from reproq_prefork.unix.scoreboard import Scoreboard, WorkerRecord, WorkerState, boottime_ns

WAITING_PATIENCE_S = 1.0  # ten times as long as a worker itself waits


class HandBackWaiting:
    """Hands back runs that a worker has claimed together with a long run, if the worker does not do so itself.

    The worker does it a tenth of a second after the claim, unless the long run prevents it: in C code that runs no
    Python.
    """

    def __init__(
        self,
        scoreboard: Scoreboard,
        steward: int,
        *,
        period_s: float,
        one_by_one: OneByOne,
        on_reset: Callable[[tuple[ResetRun, ...]], None],
    ) -> None:
        self.period_s = period_s
        self._scoreboard = scoreboard
        self._steward = steward
        self._one_by_one = one_by_one
        self._on_reset = on_reset

    def run(self, store: StewardStore) -> None:
        late_ns = boottime_ns() - int(WAITING_PATIENCE_S * 1e9)
        for record in live_workers_of(self._scoreboard, self._steward).values():
            busy = record.state is WorkerState.BUSY and record.started_run is not None
            if busy and record.waiting and record.started_ns < late_ns:
                self._on_reset(self._handed_back(store, record))

    def _handed_back(self, store: StewardStore, record: WorkerRecord) -> tuple[ResetRun, ...]:
        holder = (record.worker_id, record.run_id, record.claim)
        return self._one_by_one.do(
            store,
            lambda only: store.hand_back_waiting(*holder, only=only),
            lambda: store.held_runs(record.worker_id),
            may_fail=False,  # the worker still holds them
        ).runs
