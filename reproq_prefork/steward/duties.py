"""What a steward does for its host, each duty with its period. A duty does its whole work in one `run`."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol

from reproq_prefork.model.identity import HostIdentity
from reproq_prefork.model.outcome import FailureKind
from reproq_prefork.model.run import LostWorker, Status
from reproq_prefork.steward.one_by_one import OneByOne
from reproq_prefork.store.steward_store import (
    SWEEP_BATCH,
    WAITERS_BATCH,
    ResetRun,
    RunToCancel,
    StewardStore,
)
from reproq_prefork.text.log import Log
from reproq_prefork.unix import kill, proc
from reproq_prefork.unix.scoreboard import Scoreboard, WorkerRecord, WorkerState, boottime_ns
from reproq_prefork.unix.signals import CANCEL_SIGNAL

CLOSE_LOOK_S = 0.02
RENEW_RETRY_S = 0.5  # at most a period, where a renewal was refused
WAITING_PATIENCE_S = 1.0  # ten times what a worker itself lets pass
MORE_WAITERS_S = 0.1
CANCEL_PATIENCE_S = 12.0  # a worker itself gives a task 5 s, and what is left of it 5 s more to be gone


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


def live_workers_of(scoreboard: Scoreboard, steward: int) -> Mapping[int, WorkerRecord]:
    """Those of them that are registered and alive."""
    return {
        slot: record
        for slot, record in workers_of(scoreboard, steward).items()
        if record.is_registered and proc.is_alive(record.process)
    }


class RenewLeases:
    """Renews the leases of all live workers, and tells each on the scoreboard until when it may believe it.

    The lease is counted from *before* the renewal was sent, so a worker's clock never runs behind the server's.

    This duty has no appointment. The steward asks before each statement whether it is time (`is_due`), so no other
    duty, and nothing that others do to one, can delay a renewal by more than one statement.
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
        self.due_at = 0.0  # monotonic seconds

    @property
    def is_due(self) -> bool:
        return time.monotonic() >= self.due_at

    def run(self, store: StewardStore) -> None:
        began = time.monotonic()
        self.due_at = began + min(RENEW_RETRY_S, self.period_s)
        self._renew(store)
        self.due_at = began + self.period_s * random.uniform(0.9, 1.1)

    def _renew(self, store: StewardStore) -> None:
        workers = live_workers_of(self._scoreboard, self._steward)
        if not workers:
            return
        sent_ns = boottime_ns()
        renewed = store.renew_leases([record.worker_id for record in workers.values()], lease_s=self._lease_s)
        for slot, record in workers.items():
            kept = record.worker_id in renewed
            self._scoreboard.update_lease(
                slot,
                record,
                lease_end_ns=sent_ns + self._believed_ns if kept else 0,
                lost=not kept,
            )


class LeaveCopy:
    """Gives up a database that has become a copy: a restore has brought the runs of another one.

    A trigger takes their registrations from its workers at once. This is for a restore without triggers.
    """

    def __init__(self, *, period_s: float) -> None:
        self.period_s = period_s

    def run(self, store: StewardStore) -> None:
        store.leave_copy()


class NoticeCancels:
    """Tells the workers of this host which of their runs were cancelled: on the scoreboard, then by a signal.

    A worker looks at the scoreboard twice a second anyway, so the signal may be lost. One that hears nothing at
    all, since its inline task sits in C code, is killed after a while: its master takes it from there.
    """

    def __init__(self, scoreboard: Scoreboard, steward: int, *, log: Log) -> None:
        self._scoreboard = scoreboard
        self._steward = steward
        self._log = log
        self._deaf_since: dict[tuple[str, int, int], float] = {}  # worker, run, claim

    def concerns(self, worker_ids: Collection[str]) -> bool:
        """Whether one of these workers is this steward's."""
        return bool(worker_ids) and any(
            record.worker_id in worker_ids for record in workers_of(self._scoreboard, self._steward).values()
        )

    def tell(self, workers: Mapping[int, WorkerRecord], to_cancel: Iterable[RunToCancel]) -> None:
        """`workers` by slot; `to_cancel` are all runs of theirs that somebody has cancelled."""
        cancelled: dict[str, list[tuple[int, int]]] = {}
        for run in to_cancel:
            cancelled.setdefault(run.worker_id, []).append((run.id, run.claim))
        self._deaf_since = {key: at for key, at in self._deaf_since.items() if key[0] in cancelled}
        for slot, record in workers.items():
            if record.worker_id in cancelled:
                self._tell(slot, record, cancelled[record.worker_id])

    def _tell(self, slot: int, record: WorkerRecord, runs: Sequence[tuple[int, int]]) -> None:
        # One that it has not shown yet is on its way to it: the worker finds this said when it starts the run.
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
                f"killing a worker: run {run_id} was cancelled and it did not end it", worker=record.worker_id
            )
            kill.signal_process(record.process, signal.SIGKILL)


class HandBackWaiting:
    """Hands back what a worker has claimed together with a run that takes long, where it does not do so itself.

    It does, a tenth of a second after the claim, unless the run keeps it from it: in C code that runs no Python.
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
            may_fail=False,  # they are the worker's
        ).runs


class SweepExpired:
    """Resets the runs of holders whose lease has ended, on whatever host they were."""

    def __init__(
        self, *, period_s: float, one_by_one: OneByOne, on_reset: Callable[[tuple[ResetRun, ...]], None]
    ) -> None:
        self.period_s = self._period_s = period_s
        self._one_by_one = one_by_one
        self._on_reset = on_reset

    def run(self, store: StewardStore) -> None:
        done = self._one_by_one.do(
            store, lambda only: store.sweep_expired(only=only), store.expired_runs, may_fail=True
        )
        # As many as a call may find: the others come next, and other duties between them.
        has_more = not done.is_apart and len(done.runs) >= SWEEP_BATCH
        self.period_s = 0.0 if has_more else self._period_s
        self._on_reset(done.runs)


class ForgetWaiters:
    """Forgets those who waited for the end of a run and are gone without a goodbye."""

    def __init__(self, *, period_s: float) -> None:
        self.period_s = self._period_s = period_s

    def run(self, store: StewardStore) -> None:
        self.period_s = self._period_s if store.forget_waiters() < WAITERS_BATCH else MORE_WAITERS_S


class ResetAbandoned:
    """Resets the runs of workers of this host that died together with their master.

    While a master lives its workers are its own affair: it first ends what a dead worker's task has started.
    """

    def __init__(self, host: HostIdentity, *, period_s: float, on_lost: Callable[[LostWorker], None]) -> None:
        """`on_lost` has the runs of such a worker reset; it may get the same worker again."""
        self.period_s = period_s
        self._host = host
        self._on_lost = on_lost

    def run(self, store: StewardStore) -> None:
        for worker in store.workers_of_host(self._host):
            if not proc.is_alive(worker.process) and not proc.is_alive(worker.master):
                message = "the worker and its master are gone"
                lost = LostWorker(worker.id, None, True, False, FailureKind.WORKER_LOST, message)
                self._on_lost(lost)


class Look:
    """Looks for the whole host what there is to do: the floor under notifications, and what starts scheduled runs.

    `announces`: the host's workers tell the application of ends, so these are looked for too.
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
        self.announced_share = 0.0  # of the server's queue of notifications, how much is taken
        self._scoreboard = scoreboard
        self._steward = steward
        self._announces = announces
        self._wake = wake
        self._wake_one = wake_one
        self._cancels = cancels

    def look_closely(self) -> None:
        """Begin with short periods, each twice the one before, up to the ordinary one."""
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


class NoticeDrained:
    """`--drain`: tells when nothing is left to do in the queues."""

    def __init__(self, *, period_s: float, drained: Callable[[], None]) -> None:
        self.period_s = period_s
        self._drained = drained

    def run(self, store: StewardStore) -> None:
        if store.queues_are_drained():
            self._drained()


def log_reset(log: Log, reset: tuple[ResetRun, ...], why: str) -> None:
    unstarted = [run.id for run in reset if not run.charged and run.status is Status.PENDING]
    if len(unstarted) > 1:  # the rest of a batch: nothing has happened to these
        several = f"runs {min(unstarted)} to {max(unstarted)} are PENDING again"
        log.warning(several, reason=why, runs=len(unstarted))
    for run in reset:
        if len(unstarted) == 1 or run.id not in unstarted:
            verdict = "PENDING again" if run.status is Status.PENDING else run.status.value
            one = f"run {run.id} is {verdict}"
            log.warning(one, reason=why, attempt_charged=run.charged)
