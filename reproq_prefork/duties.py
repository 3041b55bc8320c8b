"""What a steward does for its host, each duty with its period. A duty does its whole work in one `run`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from reproq_prefork import processes
from reproq_prefork.identity import HostIdentity
from reproq_prefork.log import Log
from reproq_prefork.scoreboard import LeaseRecord, Scoreboard, WorkerRecord, boottime_ns
from reproq_prefork.store.steward_store import SWEEP_BATCH, ResetRun, StewardStore
from reproq_prefork.task_run import FailureKind, LostWorker, Status


class Duty(Protocol):
    period_s: float

    def run(self, store: StewardStore) -> None:
        """Do it once. Raises what `store` raises; it is then done again a period later."""


def workers_of(scoreboard: Scoreboard, steward: int) -> Mapping[int, WorkerRecord]:
    """The records of one steward's workers by slot; a torn one is left out."""
    records = ((slot, scoreboard.read_worker(slot)) for slot in range(scoreboard.slots))
    return {
        slot: record
        for slot, record in records
        if record is not None and record.incarnation and record.steward == steward
    }


class RenewLeases:
    """Renews the leases of all live workers, and tells each on the scoreboard until when it may believe it.

    The lease is counted from *before* the renewal was sent, so a worker's clock never runs behind the server's.
    """

    def __init__(
        self,
        scoreboard: Scoreboard,
        steward: int,
        *,
        period_s: float,
        lease_s: float,
        believed_lease_s: float,
    ) -> None:
        self.period_s = period_s
        self._scoreboard = scoreboard
        self._steward = steward
        self._lease_s = lease_s
        self._believed_ns = int(believed_lease_s * 1e9)

    def run(self, store: StewardStore) -> None:
        workers = {
            slot: record
            for slot, record in workers_of(self._scoreboard, self._steward).items()
            if record.is_registered and processes.is_alive(record.process)
        }
        if not workers:
            return
        sent_ns = boottime_ns()
        renewed = store.renew_leases([record.worker_id for record in workers.values()], lease_s=self._lease_s)
        for slot, record in workers.items():
            kept = record.worker_id in renewed
            self._scoreboard.write_lease(
                slot,
                LeaseRecord(
                    incarnation=record.incarnation,
                    lease_end_ns=sent_ns + self._believed_ns if kept else 0,
                    lost=not kept,
                ),
            )


class SweepExpired:
    """Resets the runs of holders whose lease has ended, on whatever host they were."""

    def __init__(self, *, period_s: float, on_reset: Callable[[tuple[ResetRun, ...]], None]) -> None:
        self.period_s = period_s
        self._on_reset = on_reset

    def run(self, store: StewardStore) -> None:
        while True:
            reset = store.sweep_expired()
            self._on_reset(reset)
            if len(reset) < SWEEP_BATCH:
                break
        store.forget_expired_workers()


class ResetAbandoned:
    """Resets the runs of workers of this host that died together with their master.

    While a master lives its workers are its own affair: it first ends what a dead worker's task has started.
    """

    def __init__(
        self, host: HostIdentity, *, period_s: float, reset: Callable[[StewardStore, LostWorker], None]
    ) -> None:
        self.period_s = period_s
        self._host = host
        self._reset = reset

    def run(self, store: StewardStore) -> None:
        for worker in store.workers_of_host(self._host):
            if not processes.is_alive(worker.process) and not processes.is_alive(worker.master):
                message = "the worker and its master are gone"
                lost = LostWorker(worker.id, None, True, False, FailureKind.WORKER_LOST, message)
                self._reset(store, lost)


class PollDue:
    """Looks for due runs for the whole host; the floor under notifications, and what starts scheduled runs."""

    def __init__(self, *, period_s: float, wake: Callable[[], None]) -> None:
        self.period_s = period_s
        self._wake = wake

    def run(self, store: StewardStore) -> None:
        if store.due_queues():
            self._wake()


class NoticeDrained:
    """`--drain`: tells when nothing is left to do in the queues."""

    def __init__(self, *, period_s: float, drained: Callable[[], None]) -> None:
        self.period_s = period_s
        self._drained = drained

    def run(self, store: StewardStore) -> None:
        if store.queues_are_drained():
            self._drained()


def log_reset(log: Log, reset: tuple[ResetRun, ...], why: str) -> None:
    for run in reset:
        verdict = "FAILED" if run.status is Status.FAILED else "PENDING again"
        log.warning(
            f"run {run.id} is {verdict}",  # noqa: G004 (this log is not the logging module)
            reason=why,
            attempt_charged=run.charged,
        )
