"""Tells workers that their run was cancelled, and ends those that do not react."""

from __future__ import annotations

import signal
import time
from collections.abc import Collection, Iterable, Mapping, Sequence

from reproq_prefork.model.run import Token
from reproq_prefork.steward.workers import workers_of
from reproq_prefork.store.steward_store import (
    RunToCancel,
)
from reproq_prefork.text.log import Log
from reproq_prefork.unix import kill
from reproq_prefork.unix.scoreboard import Scoreboard, WorkerRecord, WorkerState
from reproq_prefork.unix.signals import CANCEL_SIGNAL

CANCEL_PATIENCE_S = 12.0  # a worker itself gives a task 5 s, and its remaining processes 5 s more


class NoticeCancels:
    """Tells the workers of this host which of their runs were cancelled: on the scoreboard, then by a signal.

    A worker looks at the scoreboard twice a second anyway, so the signal may be lost. A worker that does not react
    at all, because its inline task is in C code, is killed after a while. Its master then handles its death.
    """

    def __init__(self, scoreboard: Scoreboard, steward: int, *, log: Log) -> None:
        self._scoreboard = scoreboard
        self._steward = steward
        self._log = log
        self._deaf_since: dict[tuple[str, int, int], float] = {}  # worker, run, claim

    def concerns(self, worker_ids: Collection[str]) -> bool:
        """Whether one of these workers belongs to this steward."""
        return bool(worker_ids) and any(
            record.worker_id in worker_ids for record in workers_of(self._scoreboard, self._steward).values()
        )

    def tell(self, workers: Mapping[int, WorkerRecord], to_cancel: Iterable[RunToCancel]) -> None:
        """`workers` are by slot. `to_cancel` are all of their runs that somebody has cancelled."""
        cancelled: dict[str, list[Token]] = {}
        for run in to_cancel:
            cancelled.setdefault(run.worker_id, []).append((run.id, run.claim))
        self._deaf_since = {key: at for key, at in self._deaf_since.items() if key[0] in cancelled}
        for slot, record in workers.items():
            if record.worker_id in cancelled:
                self._tell(slot, record, cancelled[record.worker_id])

    def _tell(self, slot: int, record: WorkerRecord, runs: Sequence[Token]) -> None:
        # A worker may not have started the run yet. Then it finds this on the scoreboard when it starts the run.
        started = record.started_run
        run_id, claim = cancelled = started if started is not None and started in runs else runs[0]
        if self._scoreboard.lease_of(slot, record).cancelled_run == cancelled:
            if started == cancelled and record.state is WorkerState.BUSY:
                self._end_if_deaf(record, run_id, claim)
            return
        self._scoreboard.update_lease(slot, record, cancel_run_id=run_id, cancel_claim=claim)
        kill.signal_process(record.process, CANCEL_SIGNAL)
        self._log.info(f"run {run_id} was cancelled; its worker is told", worker=record.worker_id)

    def _end_if_deaf(self, record: WorkerRecord, run_id: int, claim: int) -> None:
        now = time.monotonic()
        if now - self._deaf_since.setdefault((record.worker_id, run_id, claim), now) >= CANCEL_PATIENCE_S:
            self._log.error(
                f"killing a worker: run {run_id} was cancelled, but the worker did not end it",
                worker=record.worker_id,
            )
            kill.signal_process(record.process, signal.SIGKILL)
