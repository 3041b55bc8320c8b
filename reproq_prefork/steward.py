"""The steward: what the master owes the database. One process, one connection, a list of duties.

The master tells it of each death; it answers once the dead worker's runs are reset. If it dies itself, the
master forks it anew and tells it again: every duty may be done twice.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reproq_prefork import processes
from reproq_prefork.channel import Channel, PeerGone
from reproq_prefork.duties import (
    IDLE_CHECK_S,
    AwaitNewRuns,
    Duty,
    HandBackWaiting,
    Look,
    NoticeCancels,
    NoticeDrained,
    RenewLeases,
    ResetAbandoned,
    SweepExpired,
    log_reset,
    workers_of,
)
from reproq_prefork.errors import DatabaseUnavailable, ExitStatus, ReproqError
from reproq_prefork.identity import HostIdentity
from reproq_prefork.log import Log
from reproq_prefork.lone_resets import LoneResets
from reproq_prefork.messages import QueuesDrained, WorkerReset
from reproq_prefork.orders import Orders
from reproq_prefork.scoreboard import Scoreboard, StewardRecord, WorkerState, boottime_ns
from reproq_prefork.settings import SWEEP_INTERVAL_S, Settings
from reproq_prefork.signals import pause, wait_readable
from reproq_prefork.store.connection import (
    ConnectionLost,
    StatementRefused,
    ValueRefused,
    reconnect_delays_s,
)
from reproq_prefork.store.steward_store import ResetRun, StewardStore
from reproq_prefork.task_run import FailureKind, LostWorker, Status
from reproq_prefork.wakeup import WakePipe

HEARTBEAT_INTERVAL_S = 1.0
RESET_AGAIN_S = 1.0  # where a dead worker's server process could not be seen gone
ORPHAN_PATIENCE_S = 2.0  # for workers whose master is gone, to stop by themselves
ORPHAN_KILL_S = 1.0


@dataclass(slots=True)
class _Appointment:
    duty: Duty
    at: float  # monotonic seconds


class Steward:
    """`index` is its place on the scoreboard; `connect` opens its store.

    `announces`: its workers tell the application of ends that no task of theirs has told it of.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        index: int,
        scoreboard: Scoreboard,
        channel: Channel,
        orders: Orders,
        wake: WakePipe,
        host: HostIdentity,
        connect: Callable[[], StewardStore],
        log: Log,
        announces: bool = False,
    ) -> None:
        self._settings = settings
        self._index = index
        self._scoreboard = scoreboard
        self._channel = channel
        self._orders = orders
        self._wake = wake
        self._connect = connect
        self._log = log
        self._notice_cancels = NoticeCancels(scoreboard, index, log=log)
        self._look = Look(
            scoreboard,
            index,
            period_s=settings.poll_interval_s,
            announces=announces,
            wake=self._wake_all,
            wake_one=self._wake_one,
            cancels=self._notice_cancels,
        )
        self._await_new_runs = AwaitNewRuns(scoreboard, index, resumed=self._look_closely)
        self._store: StewardStore | None = None
        self._connect_at = 0.0
        self._delays_s = reconnect_delays_s()
        self._lost: list[LostWorker] = []
        self._again: list[tuple[float, LostWorker]] = []
        self._lone_resets = LoneResets(log)
        self._appointments = [_Appointment(duty, 0.0) for duty in self._duties(host)]

    def _duties(self, host: HostIdentity) -> Sequence[Duty]:
        settings = self._settings
        duties: list[Duty] = [
            RenewLeases(
                self._scoreboard,
                self._index,
                period_s=settings.renew_interval_s,
                lease_s=settings.lease_s,
                believed_lease_s=settings.believed_lease_s,
            ),
            ResetAbandoned(host, period_s=SWEEP_INTERVAL_S, reset=self._reset),
            SweepExpired(
                period_s=SWEEP_INTERVAL_S,
                on_reset=lambda runs: self._after_reset(runs, "the lease had ended"),
                lone_resets=self._lone_resets,
            ),
            HandBackWaiting(
                self._scoreboard,
                self._index,
                period_s=settings.poll_interval_s,
                on_reset=lambda runs: self._after_reset(runs, "the run before it takes long"),
            ),
            self._look,
        ]
        if settings.drain:
            duties.append(
                NoticeDrained(
                    period_s=settings.poll_interval_s, drained=lambda: self._channel.send(QueuesDrained())
                )
            )
        return duties

    def run(self) -> ExitStatus:
        while True:
            self._orders.read()
            self._hear_master()
            if self._orders.master_is_gone:
                self._bury_orphans()
                return ExitStatus.OK
            if self._orders.quit and (self._store is None or not self._lost):
                return ExitStatus.OK
            self._show_heartbeat()
            self._serve()
            self._channel.flush()
            self._wait()

    def _serve(self) -> None:
        """All that is due at this moment, as far as the database lets it."""
        try:
            store = self._connected_store()
            if store is None:
                return
            self._do(self._reset_lost, store)
            for appointment in self._appointments:
                if time.monotonic() >= appointment.at:
                    appointment.at = time.monotonic() + appointment.duty.period_s * random.uniform(0.9, 1.1)
                    self._do(appointment.duty.run, store)
                    self._show_heartbeat()
            news = store.news()
            self._await_new_runs.again_if_idle(store)
            messages = sum(queue in self._settings.queues for queue in news.queues)
            if messages:
                self._wake_one()
            self._await_new_runs.heard(store, messages)
            if self._notice_cancels.concerns(news.cancelled_at):
                self._look.run(store)
        except ConnectionLost as lost:
            self._log.warning("the connection is lost", reason=str(lost))
            self._disconnect()
        except (ReproqError, OSError) as error:
            self._not_done(error)

    def _do(self, duty: Callable[[StewardStore], object], store: StewardStore) -> None:
        """One duty. What keeps it from being done, such as a lock, keeps no other, least of all the renewals."""
        try:
            duty(store)
        except ConnectionLost:
            raise
        except (ReproqError, OSError) as error:
            self._not_done(error)

    def _not_done(self, error: Exception) -> None:
        # OSError: the host is out of descriptors, and nothing can be known of its processes.
        self._log.warning("a duty could not be done; it will be tried again", reason=str(error))

    def _connected_store(self) -> StewardStore | None:
        if self._store is None and time.monotonic() >= self._connect_at:
            try:
                self._store = self._connect()
                can_hear = self._store.listen()
                self._await_new_runs.connected(can_hear=can_hear)
                if not can_hear:
                    self._log.info("behind a transaction pooler: polling only, without notifications")
            except (DatabaseUnavailable, ConnectionLost) as error:
                self._disconnect()
                self._log.warning("no connection to the database", reason=str(error))
            else:
                self._delays_s = reconnect_delays_s()
                self._show_heartbeat()
        return self._store

    def _disconnect(self) -> None:
        if self._store is not None:
            self._store.close()
        self._store = None
        self._await_new_runs.connected(can_hear=False)
        self._connect_at = time.monotonic() + next(self._delays_s)
        self._show_heartbeat()

    def _hear_master(self) -> None:
        try:
            for message in self._channel.receive():
                assert isinstance(message, LostWorker)
                if message not in self._lost:
                    self._lost.append(message)
        except PeerGone:
            pass  # the life pipe tells the same

    def _reset_lost(self, store: StewardStore) -> None:
        while self._lost:
            lost = self._lost[0]
            self._reset(store, lost)
            self._lost.pop(0)
            self._channel.send(WorkerReset(lost.worker_id))
        now = time.monotonic()
        for due in [entry for entry in self._again if entry[0] <= now]:
            self._reset_runs(store, due[1])
            self._again.remove(due)

    def _reset(self, store: StewardStore, lost: LostWorker) -> None:
        # Until its server process is gone, the claim that the worker sent last may still be committed.
        seen_gone = not store.backend.pooled and store.end_backend_of(lost.worker_id)
        self._reset_runs(store, lost)
        if not seen_gone:
            self._again.append((time.monotonic() + RESET_AGAIN_S, lost))

    def _reset_runs(self, store: StewardStore, lost: LostWorker) -> None:
        try:
            self._after_reset(store.reset_worker(lost), lost.message)
        except (StatementRefused, ValueRefused) as refusal:
            for runs in self._lone_resets.of_worker(store, lost, refusal):
                self._after_reset(runs, lost.message)

    def _after_reset(self, runs: tuple[ResetRun, ...], why: str) -> None:
        log_reset(self._log, runs, why)
        pending = sum(run.status is Status.PENDING for run in runs)
        if pending:
            self._wake.wake(pending, at_most_waiting=self._settings.workers)

    def _wake_one(self) -> None:
        self._wake.wake(1, at_most_waiting=self._settings.workers)

    def _wake_all(self) -> None:
        self._wake.wake(self._settings.workers, at_most_waiting=self._settings.workers)

    def _look_closely(self) -> None:
        self._look.look_closely()
        for appointment in self._appointments:
            if appointment.duty is self._look:
                appointment.at = 0.0

    def _show_heartbeat(self) -> None:
        self._scoreboard.write_steward(
            self._index, StewardRecord(os.getpid(), boottime_ns(), self._store is not None)
        )

    def _wait(self) -> None:
        now = time.monotonic()
        if self._store is None:
            times = [self._connect_at]
        else:
            times = [appointment.at for appointment in self._appointments] + [at for at, _ in self._again]
        longest_s = IDLE_CHECK_S if self._await_new_runs.is_watching() else HEARTBEAT_INTERVAL_S
        wait_s = min(longest_s, min(times) - now)
        fds = [*self._orders.fds, self._channel.fileno()]
        if self._store is not None:
            fds.append(self._store.fileno())
        wait_readable(fds, max(0.0, wait_s))

    def _bury_orphans(self) -> None:
        """The master is gone: see its workers gone too, and put back what they did not hand back themselves."""
        self._log.error("the master is gone; stopping")
        gives_up_at = time.monotonic() + ORPHAN_PATIENCE_S
        workers = workers_of(self._scoreboard, self._index)
        while any(processes.is_alive(worker.process) for worker in workers.values()):
            if time.monotonic() > gives_up_at:
                break
            pause(0.02)
        for slot, worker in workers.items():
            if processes.is_alive(worker.process):
                self._log.error("killing a worker that did not stop", pid=worker.pid)
                processes.kill_tree(worker.process, within_s=ORPHAN_KILL_S)
            last = self._scoreboard.read_worker(slot)
            if last is None or last.state is not WorkerState.STOPPED:
                self._lost.append(
                    LostWorker(
                        worker.worker_id,
                        started=None if last is None else last.started_run,
                        charge_all=last is None,
                        refund=True,
                        kind=FailureKind.SHUTDOWN,
                        message="the worker's master died",
                    )
                )
        try:
            store = self._connected_store()
            if store is not None:
                self._reset_lost(store)
        except ReproqError as error:
            self._log.error("what the workers held is left to its lease", reason=str(error))
