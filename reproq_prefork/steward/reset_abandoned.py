"""Resets the workers of this host whose master is dead."""

from __future__ import annotations

from collections.abc import Callable

from reproq_prefork.model.identity import HostIdentity
from reproq_prefork.model.outcome import FailureKind
from reproq_prefork.model.run import LostWorker
from reproq_prefork.store.steward_store import (
    StewardStore,
)
from reproq_prefork.unix import proc


class ResetAbandoned:
    """Resets the runs of workers of this host that died together with their master.

    While a master lives, it handles its dead workers itself: it first kills what a dead worker's task has started.
    """

    def __init__(self, host: HostIdentity, *, period_s: float, on_lost: Callable[[LostWorker], None]) -> None:
        """`on_lost` resets the runs of such a worker. It may get the same worker more than once."""
        self.period_s = period_s
        self._host = host
        self._on_lost = on_lost

    def run(self, store: StewardStore) -> None:
        for worker in store.workers_of_host(self._host):
            if not proc.is_alive(worker.process) and not proc.is_alive(worker.master):
                message = "the worker and its master are gone"
                lost = LostWorker(worker.id, None, True, False, FailureKind.WORKER_LOST, message)
                self._on_lost(lost)
