"""The steward does for its host what must be done in the database: one process, one connection, a list of duties.

The master reports each dead worker to it. The steward answers after it has reset that worker's runs. If the
steward dies, the master forks another and reports again, so every duty may be done twice.
"""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reproq_prefork.errors import ExitStatus, ReproqError
from reproq_prefork.model.identity import HostIdentity
from reproq_prefork.model.messages import QueuesDrained, WorkerReset
from reproq_prefork.model.outcome import FailureKind
from reproq_prefork.model.run import LostWorker, Status
from reproq_prefork.settings import SWEEP_INTERVAL_S, Settings
from reproq_prefork.steward.duty import Duty
from reproq_prefork.steward.forget_waiters import ForgetWaiters
from reproq_prefork.steward.hand_back_waiting import HandBackWaiting
from reproq_prefork.steward.leave_copy import LeaveCopy
from reproq_prefork.steward.listening import IDLE_CHECK_S, AwaitNewRuns, Listening
from reproq_prefork.steward.look_for_work import LookForWork
from reproq_prefork.steward.notice_cancels import NoticeCancels
from reproq_prefork.steward.notice_drained import NoticeDrained
from reproq_prefork.steward.one_by_one import OneByOne
from reproq_prefork.steward.renew_leases import RenewLeases
from reproq_prefork.steward.reset_abandoned import ResetAbandoned
from reproq_prefork.steward.reset_log import log_reset
from reproq_prefork.steward.reset_lost import ResetLost
from reproq_prefork.steward.sweep_expired import SweepExpired
from reproq_prefork.steward.workers import workers_of
from reproq_prefork.store.connection import reconnect_delays_s
from reproq_prefork.store.opening import GoesOn
from reproq_prefork.store.outcomes import ConnectionLost
from reproq_prefork.store.steward_store import ResetRun, StewardStore
from reproq_prefork.text.log import Log
from reproq_prefork.text.recurring import Recurring
from reproq_prefork.unix import kill, proc
from reproq_prefork.unix.channel import Channel, PeerGone
from reproq_prefork.unix.orders import Orders
from reproq_prefork.unix.scoreboard import Scoreboard, StewardRecord, WorkerState, boottime_ns
from reproq_prefork.unix.signals import pause, wait_readable
from reproq_prefork.unix.wake_pipe import WakePipe

HEARTBEAT_INTERVAL_S = 1.0
HEARD_LOOK_S = 0.05  # between two looks because of a NOTIFY about cancels, which anybody can send
ORPHAN_PATIENCE_S = 2.0  # how long workers have to stop by themselves after their master is gone
ORPHAN_KILL_S = 1.0


@dataclass(slots=True)
class _Appointment:
    duty: Duty
    at: float  # monotonic seconds


class Steward:
    """`index` is its place on the scoreboard. `connect` opens its store.

    `announces`: its workers announce ends that no task process has announced.
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
        connect: Callable[[GoesOn], StewardStore],
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
        self._trouble = Recurring(log)
        self._notice_cancels = NoticeCancels(scoreboard, index, log=log)
        self._look = LookForWork(
            scoreboard,
            index,
            period_s=settings.poll_interval_s,
            announces=announces,
            wake=self._wake_all,
            wake_one=self._wake_one,
            cancels=self._notice_cancels,
        )
        self._await_new_runs = AwaitNewRuns(scoreboard, index, resumed=self._look_closely, log=log)
        self._listening = Listening(awaits=self._await_new_runs, log=log)
        self._renewals = RenewLeases(
            scoreboard,
            index,
            period_s=settings.renew_interval_s,
            lease_s=settings.lease_s,
            believed_lease_s=settings.believed_lease_s,
        )
        self._store: StewardStore | None = None
        self._connect_at = 0.0
        self._delays_s = reconnect_delays_s()
        self._was_lost = False  # the last connection
        self._one_by_one = OneByOne(log)
        self._reset_lost = ResetLost(
            lease_s=settings.lease_s,
            one_by_one=self._one_by_one,
            on_reset=lambda runs, lost: self._after_reset(runs, lost.message),
            answer=lambda lost: self._channel.send(WorkerReset(lost.worker_id)),
        )
        self._appointments = [_Appointment(duty, 0.0) for duty in self._duties(host)]

    def _duties(self, host: HostIdentity) -> Sequence[Duty]:
        settings = self._settings
        duties: list[Duty] = [
            LeaveCopy(period_s=SWEEP_INTERVAL_S),
            ResetAbandoned(host, period_s=SWEEP_INTERVAL_S, on_lost=self._reset_lost.note),
            SweepExpired(
                period_s=SWEEP_INTERVAL_S,
                one_by_one=self._one_by_one,
                on_reset=lambda runs: self._after_reset(runs, "the lease had ended"),
            ),
            HandBackWaiting(
                self._scoreboard,
                self._index,
                period_s=settings.poll_interval_s,
                one_by_one=self._one_by_one,
                on_reset=lambda runs: self._after_reset(runs, "the run before it takes long"),
            ),
            ForgetWaiters(period_s=SWEEP_INTERVAL_S),
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
                self._end_orphaned_workers()
                return ExitStatus.OK
            if self._orders.quit and (self._store is None or not self._reset_lost.waiting):
                return ExitStatus.OK
            self._show_heartbeat()
            self._serve()
            self._channel.flush()
            self._wait()

    def _serve(self) -> None:
        """Do everything that is due now, as far as the database allows."""
        try:
            store = self._connected_store()
            if store is None:
                return
            self._do_first(store)
            self._do(self._reset_lost.run, store)
            for appointment in self._appointments:
                if time.monotonic() >= appointment.at:
                    period_s = appointment.duty.period_s
                    appointment.at = time.monotonic() + period_s * random.uniform(0.9, 1.1)
                    self._do(appointment.duty.run, store)
                    if appointment.duty.period_s < period_s:  # the duty has found more to do
                        appointment.at = time.monotonic() + appointment.duty.period_s
            self._do(self._hear, store)
            self._delays_s = reconnect_delays_s()
        except ConnectionLost as lost:
            self._trouble.warning("the connection is lost", reason=str(lost))
            self._disconnect()
        except (ReproqError, OSError) as error:
            self._not_done(error)

    def _do_first(self, store: StewardStore) -> None:
        """Do what must never be late. The store calls this before each of its statements."""
        self._show_heartbeat()
        if self._renewals.is_due:
            self._do(self._renewals.run, store)

    def _hear(self, store: StewardStore) -> None:
        news = store.news()
        self._listening.heard(store, news, self._look.announced_share)
        self._listening.begin(store, self._look.announced_share)
        self._await_new_runs.again_if_idle(store)
        messages = sum(queue in self._settings.queues for queue in news.queues)
        if messages:
            self._wake_one()
        self._await_new_runs.heard(store, messages)
        if self._notice_cancels.concerns(news.cancelled_at):
            self._look_by(self._look.looked_at + HEARD_LOOK_S)

    def _do(self, duty: Callable[[StewardStore], object], store: StewardStore) -> None:
        """Do one duty. If something prevents it, such as a lock, the other duties and the renewals go on."""
        try:
            duty(store)
        except ConnectionLost:
            raise
        except (ReproqError, OSError) as error:
            self._not_done(error)

    def _not_done(self, error: Exception) -> None:
        # OSError: the host has no free descriptors, so /proc cannot be read.
        self._trouble.warning("a duty could not be done; it will be tried again", reason=str(error))

    def _connected_store(self) -> StewardStore | None:
        if self._store is None and time.monotonic() >= self._connect_at:
            try:
                store, can_listen = self._opened_store()
            except ReproqError as error:
                self._disconnect()
                self._trouble.warning("no connection to the database", reason=str(error))
            else:
                self._store = store
                store.before_each = lambda: self._do_first(store)
                self._listening.connected(can_listen=can_listen)
                self._show_heartbeat()
                if not can_listen:
                    self._log.info("behind a transaction pooler: polling only, without notifications")
                if self._was_lost:
                    self._log.info("connected again")
                    # What ended this connection may also have ended those of idle workers, and they do not notice.
                    self._wake_all()
        return self._store

    def _opened_store(self) -> tuple[StewardStore, bool]:
        """Open a connection. Returns it, and whether it can receive notifications. Raises ReproqError.

        However long that takes, the steward shows signs of life.
        """
        had_quit = self._orders.quit

        def goes_on(for_s: float) -> bool:
            self._show_heartbeat(ahead_s=for_s)
            self._orders.read()
            return self._orders.quit == had_quit

        store = self._connect(goes_on)
        try:
            return store, store.can_listen()
        except BaseException:
            store.close()
            raise

    def _disconnect(self) -> None:
        if self._store is not None:
            self._listening.disconnected(flooded=self._store.was_flooded)
            self._store.close()
            self._was_lost = True
        self._store = None
        self._connect_at = time.monotonic() + next(self._delays_s)
        self._show_heartbeat()

    def _hear_master(self) -> None:
        try:
            for message in self._channel.receive():
                assert isinstance(message, LostWorker)
                self._reset_lost.note(message)
        except PeerGone:
            pass  # the life pipe reports the same

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
        self._look_by(0.0)

    def _look_by(self, at: float) -> None:
        for appointment in self._appointments:
            if appointment.duty is self._look:
                appointment.at = min(appointment.at, at)

    def _show_heartbeat(self, *, ahead_s: float = 0.0) -> None:
        """`ahead_s`: for so long there will be no other heartbeat."""
        at_ns = boottime_ns() + int(ahead_s * 1e9)
        self._scoreboard.write_steward(
            self._index, StewardRecord(os.getpid(), at_ns, self._store is not None)
        )

    def _wait(self) -> None:
        now = time.monotonic()
        if self._store is None:
            times = [self._connect_at]
        else:
            times = [
                self._renewals.due_at,
                self._reset_lost.due_at,
                *(appointment.at for appointment in self._appointments),
            ]
        longest_s = IDLE_CHECK_S if self._await_new_runs.is_watching() else HEARTBEAT_INTERVAL_S
        wait_s = min(longest_s, min(times) - now)
        fds = [*self._orders.fds, self._channel.fileno()]
        if self._store is not None:
            fds.append(self._store.fileno())
        wait_readable(fds, max(0.0, wait_s))

    def _end_orphaned_workers(self) -> None:
        """The master is gone: end its workers, and reset the runs that they did not hand back themselves."""
        self._log.error("the master is gone; stopping")
        gives_up_at = time.monotonic() + ORPHAN_PATIENCE_S
        workers = workers_of(self._scoreboard, self._index)
        while any(proc.is_alive(worker.process) for worker in workers.values()):
            if time.monotonic() > gives_up_at:
                break
            pause(0.02)
        for slot, worker in workers.items():
            if proc.is_alive(worker.process):
                self._log.error("killing a worker that did not stop", pid=worker.pid)
                kill.kill_tree(worker.process, within_s=ORPHAN_KILL_S)
            last = self._scoreboard.read_worker(slot)
            unrecorded = self._scoreboard.unrecorded_of(slot, worker.incarnation)
            if last is None or last.state is not WorkerState.STOPPED:
                self._reset_lost.note(
                    LostWorker(
                        worker.worker_id,
                        started=None if last is None else last.started_run,
                        charge_all=last is None or unrecorded is None,
                        refund=True,
                        kind=FailureKind.SHUTDOWN,
                        message="the worker's master died",
                        unrecorded=unrecorded or (),
                    )
                )
        self._connect_at = 0.0
        try:
            store = self._connected_store()
            if store is not None:
                self._reset_lost.run(store, within_s=math.inf)
        except ReproqError as error:
            self._log.error("the workers' runs could not be reset; their leases will end", reason=str(error))
