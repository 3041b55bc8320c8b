"""What a steward says of its workers on the scoreboard, with a database that is made up."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any, cast

import pytest

from reproq_prefork.model.identity import HostIdentity, ProcessIdentity
from reproq_prefork.model.run import LostWorker, Status
from reproq_prefork.steward import notice_cancels, renew_leases
from reproq_prefork.steward.hand_back_waiting import HandBackWaiting
from reproq_prefork.steward.one_by_one import OneByOne
from reproq_prefork.steward.renew_leases import RenewLeases
from reproq_prefork.steward.reset_abandoned import ResetAbandoned
from reproq_prefork.steward.sweep_expired import SweepExpired
from reproq_prefork.store.outcomes import StatementRefused
from reproq_prefork.store.steward_store import (
    SWEEP_BATCH,
    RegisteredWorker,
    ResetRun,
    RunToCancel,
    Sight,
    StewardStore,
)
from reproq_prefork.unix import proc
from reproq_prefork.unix.scoreboard import LeaseRecord, WorkerRecord, WorkerState, boottime_ns
from reproq_prefork.unix.signals import CANCEL_SIGNAL
from tests.support.fakes.steward_host import STEWARD, Host, ScriptedStore
from tests.support.unix.children import exit_status_of, forked, sleep_for_ever


@pytest.fixture
def signals() -> Iterator[list[int]]:
    """The cancel signals that came to this process."""
    came: list[int] = []
    previous = signal.signal(CANCEL_SIGNAL, lambda signum, frame: came.append(signum))
    yield came
    signal.signal(CANCEL_SIGNAL, previous)


@pytest.fixture
def host(signals: list[int]) -> Iterator[Host]:
    host = Host()
    yield host
    host.close()


def test_a_cancel_reaches_its_worker_once_by_the_scoreboard_and_a_signal(
    host: Host, signals: list[int]
) -> None:
    host.add_worker(0, run_id=7, claim=2)
    host.add_worker(1, run_id=8, claim=1)
    host.scripted.cancelled = [RunToCancel("w0", 7, 2)]
    host.look.run(host.store)
    host.look.run(host.store)
    assert host.said_of(0).cancelled_run == (7, 2)
    assert host.said_of(1).cancelled_run is None
    assert signals == [CANCEL_SIGNAL]
    assert b"run 7 was cancelled" in os.read(host.log_reader, 4096)


def test_a_worker_that_does_not_react_to_a_cancel_is_killed(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    with forked(sleep_for_ever) as deaf:
        process = proc.identity_of(deaf.pid)
        assert process is not None
        host.add_worker(0, run_id=7, claim=2, pid=process.pid, pid_started=process.started)
        host.scripted.cancelled = [RunToCancel("w0", 7, 2)]
        for _ in range(3):
            host.look.run(host.store)
        assert deaf.exitcode is None, "it has some time"
        monkeypatch.setattr(notice_cancels, "CANCEL_PATIENCE_S", 0.0)
        host.add_worker(0, run_id=8, claim=1, pid=process.pid, pid_started=process.started)
        host.look.run(host.store)
        assert b"killing" not in os.read(host.log_reader, 65_536), "it is at another run by now"
        host.add_worker(0, run_id=7, claim=2, pid=process.pid, pid_started=process.started)
        host.look.run(host.store)
        assert exit_status_of(deaf) == -signal.SIGKILL


def test_a_renewal_keeps_the_cancel_on_the_scoreboard_and_a_cancel_keeps_the_lease(
    host: Host,
) -> None:
    host.add_worker(0, run_id=7, claim=2)
    host.renew.run(host.store)
    renewed = host.board.read_lease(STEWARD, 0)
    assert renewed is not None
    host.scripted.cancelled = [RunToCancel("w0", 7, 2)]
    host.look.run(host.store)
    assert host.board.read_lease(STEWARD, 0) == LeaseRecord(10, renewed.lease_end_ns, False, 7, 2)
    host.renew.run(host.store)
    assert host.said_of(0).cancelled_run == (7, 2)
    assert host.said_of(0).lease_end_ns >= renewed.lease_end_ns


class LateStore(ScriptedStore):
    """Answers only after something has happened meanwhile."""

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        super().__init__()
        self._meanwhile = meanwhile

    def renew_leases(self, worker_ids: Collection[str], *, lease_s: float) -> frozenset[str]:
        self._meanwhile()
        return frozenset(worker_ids) - {"lost"}

    def look(self, worker_ids: Collection[str], *, announces: bool) -> Sight:
        self._meanwhile()
        return super().look(worker_ids, announces=announces)


@pytest.mark.parametrize("old", ["w0", "lost"])
def test_a_late_renewal_by_the_old_steward_does_not_change_the_lease_of_the_next_worker(
    host: Host, old: str
) -> None:
    """The worker has exited, and the new steward has written the lease of the next worker in that slot."""
    newer = RenewLeases(host.board, STEWARD - 1, period_s=1, lease_s=60, believed_lease_s=50)

    def another_takes_the_slot() -> None:
        host.add_worker(0, incarnation=20, steward=STEWARD - 1, worker_id="new", lease_end_ns=1)
        newer.run(host.store)

    host.add_worker(0, worker_id=old)
    host.renew.run(cast(StewardStore, LateStore(another_takes_the_slot)))
    worker = host.board.read_worker(0)
    assert worker is not None
    assert worker.worker_id == "new"
    assert host.said_of(0).lease_end_ns > boottime_ns()
    assert host.board.lease_end_ns(0, worker) > boottime_ns()
    assert not host.said_of(0).lost


def test_a_late_cancel_by_the_old_steward_does_not_reach_the_next_worker(
    host: Host, signals: list[int]
) -> None:
    newer = RenewLeases(host.board, STEWARD - 1, period_s=1, lease_s=60, believed_lease_s=50)

    def another_takes_the_slot() -> None:
        host.add_worker(0, incarnation=20, steward=STEWARD - 1, worker_id="new", run_id=7, claim=2, pid=1)
        newer.run(host.store)
        host.board.update_lease(
            0,
            WorkerRecord(incarnation=20, steward=STEWARD - 1),
            lease_end_ns=boottime_ns() + 10**12,
        )

    late = LateStore(another_takes_the_slot)
    late.cancelled = [RunToCancel("w0", 7, 2)]
    host.add_worker(0, run_id=7, claim=2)
    host.look.run(cast(StewardStore, late))
    assert host.said_of(0).cancelled_run is None
    assert host.said_of(0).lease_end_ns > boottime_ns()


def test_a_claim_that_is_not_shown_yet_is_cancelled_before_it_starts(host: Host) -> None:
    host.add_worker(0, state=WorkerState.IDLE)
    host.scripted.cancelled = [RunToCancel("w0", 7, 2)]
    host.look.run(host.store)
    assert host.said_of(0).cancelled_run == (7, 2)


def test_of_two_cancelled_runs_the_one_that_the_worker_executes_is_shown(host: Host) -> None:
    host.add_worker(0, run_id=8, claim=1)
    host.scripted.cancelled = [RunToCancel("w0", 7, 2), RunToCancel("w0", 8, 1)]
    host.look.run(host.store)
    assert host.said_of(0).cancelled_run == (8, 1)


def test_the_next_cancelled_run_replaces_the_one_before(host: Host, signals: list[int]) -> None:
    for run_id in (7, 8):
        host.add_worker(0, run_id=run_id, claim=1)
        host.scripted.cancelled = [RunToCancel("w0", run_id, 1)]
        host.look.run(host.store)
        assert host.said_of(0).cancelled_run == (run_id, 1)
    assert len(signals) == 2


def test_a_steward_asks_only_about_its_own_live_workers(host: Host) -> None:
    with forked(lambda: 0) as child:
        gone = child.pid
    host.add_worker(0, steward=STEWARD - 1)
    host.add_worker(1, pid=gone)
    host.look.run(host.store)
    host.add_worker(2)
    host.look.run(host.store)
    assert host.scripted.asked == [([], False), (["w2"], False)]


def test_a_cancel_concerns_a_steward_if_it_names_one_of_its_workers(host: Host) -> None:
    host.add_worker(0)
    host.add_worker(1, steward=STEWARD - 1)
    assert host.notice.concerns({"w0", "elsewhere"})
    assert not host.notice.concerns({"w1", "elsewhere"})
    assert not host.notice.concerns(set())


@pytest.mark.parametrize(
    ("runs_are_due", "is_finish_due", "woken"),
    [(True, False, ["all"]), (False, True, ["one"]), (False, False, [])],
)
@pytest.mark.parametrize("announces", [True, False])
def test_due_runs_wake_all_workers_and_a_due_announcement_wakes_one(
    host: Host, announces: bool, runs_are_due: bool, is_finish_due: bool, woken: list[str]
) -> None:
    host.scripted.runs_are_due, host.scripted.is_finish_due = runs_are_due, is_finish_due
    host.make_look(announces=announces).run(host.store)
    assert host.woken == woken
    assert host.scripted.asked == [([], announces)]


def test_close_looks_start_at_once_and_become_less_frequent(host: Host) -> None:
    assert host.look.period_s == 1
    host.look.look_closely()
    periods = []
    for _ in range(8):
        periods.append(host.look.period_s)
        host.look.run(host.store)
    assert periods == pytest.approx([0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1, 1])


class NotRenewed(ScriptedStore):
    def renew_leases(self, worker_ids: Collection[str], *, lease_s: float) -> frozenset[str]:
        return frozenset(worker_ids) - {"w0"}


def test_a_lease_that_is_not_renewed_is_shown_to_its_worker_as_lost(host: Host) -> None:
    for slot in (0, 1):
        host.add_worker(slot)
    host.renew.run(cast(StewardStore, NotRenewed()))
    assert [(host.said_of(slot).lost, host.said_of(slot).lease_end_ns > 0) for slot in (0, 1)] == [
        (True, False),
        (False, True),
    ]


class Refusing(ScriptedStore):
    def renew_leases(self, worker_ids: Collection[str], *, lease_s: float) -> frozenset[str]:
        raise StatementRefused("locked")


def test_a_renewal_that_is_refused_is_sent_again_before_the_next_one_is_due(host: Host) -> None:
    renew = RenewLeases(host.board, STEWARD, period_s=5, lease_s=30, believed_lease_s=25)
    host.add_worker(0)
    with pytest.raises(StatementRefused):
        renew.run(cast(StewardStore, Refusing()))
    assert renew.due_at - time.monotonic() <= renew_leases.RENEW_RETRY_S
    renew.run(host.store)
    assert 4 < renew.due_at - time.monotonic() <= 5.5


@pytest.mark.parametrize(
    ("changes", "is_renewed"),
    [
        ({}, True),
        ({"state": WorkerState.IDLE}, True),
        ({"state": WorkerState.STOPPED}, False),
        ({"lease_end_ns": 0}, False),
        ({"steward": STEWARD - 1}, False),
    ],
    ids=["busy", "idle", "left", "not registered", "of another steward"],
)
def test_which_leases_are_renewed(host: Host, changes: dict[str, Any], is_renewed: bool) -> None:
    host.add_worker(0, **changes)
    host.renew.run(host.store)
    said = host.board.read_lease(STEWARD, 0)
    assert said is not None
    assert (said.lease_end_ns > 0) == is_renewed


# --- what waits behind a long run ---


class WithWaiting(ScriptedStore):
    def __init__(self) -> None:
        super().__init__()
        self.handed_back: list[tuple[str, int, int]] = []

    def hand_back_waiting(
        self, worker_id: str, run_id: int, claim: int, *, only: Collection[int] | None = None
    ) -> tuple[ResetRun, ...]:
        self.handed_back.append((worker_id, run_id, claim))
        return (ResetRun(8, Status.PENDING, "default", False),)


@pytest.mark.parametrize(
    ("late_s", "changes", "is_handed_back"),
    [
        (1.5, {}, True),
        (0.5, {}, False),
        (1.5, {"waiting": 0}, False),
        (1.5, {"run_id": 0}, False),
        (1.5, {"state": WorkerState.SETTLING}, False),
        (1.5, {"steward": STEWARD - 1}, False),
    ],
    ids=["late", "in time", "no waiting runs", "not started", "ended", "of another steward"],
)
def test_runs_that_wait_behind_a_long_run_are_handed_back(
    host: Host, late_s: float, changes: dict[str, Any], is_handed_back: bool
) -> None:
    store = WithWaiting()
    reset: list[ResetRun] = []
    record = {"run_id": 7, "claim": 2, "waiting": 3, "started_ns": boottime_ns() - int(late_s * 1e9)}
    host.add_worker(0, **(record | changes))
    HandBackWaiting(
        host.board, STEWARD, period_s=1, one_by_one=OneByOne(host.log), on_reset=reset.extend
    ).run(cast(StewardStore, store))
    assert store.handed_back == [("w0", 7, 2)] * is_handed_back
    assert [run.id for run in reset] == [8] * is_handed_back


# --- runs of holders whose lease has ended ---


class WithExpired(ScriptedStore):
    def __init__(self, runs: int) -> None:
        super().__init__()
        self.runs = runs

    def sweep_expired(self, *, only: Collection[int] | None = None) -> tuple[ResetRun, ...]:
        swept = min(self.runs, SWEEP_BATCH)
        self.runs -= swept
        return tuple(ResetRun(number, Status.PENDING, "default", True) for number in range(swept))

    def expired_runs(self) -> Iterator[tuple[int, int]]:
        raise AssertionError


def test_a_sweep_that_reached_its_limit_is_followed_by_another_at_once(host: Host) -> None:
    store = WithExpired(2 * SWEEP_BATCH + 1)
    reset: list[ResetRun] = []
    duty = SweepExpired(period_s=5, one_by_one=OneByOne(host.log), on_reset=reset.extend)
    periods = []
    for _ in range(4):
        duty.run(cast(StewardStore, store))
        periods.append(duty.period_s)
    assert periods == [0, 0, 5, 5]
    assert len(reset) == 2 * SWEEP_BATCH + 1


# --- workers of this host whose master is gone too ---


@pytest.mark.parametrize("worker_is_alive", [True, False])
@pytest.mark.parametrize("master_is_alive", [True, False])
def test_a_worker_is_abandoned_once_it_and_its_master_are_gone(
    host: Host, worker_is_alive: bool, master_is_alive: bool
) -> None:
    """A live master first kills the processes of a dead worker's task. Which runs had started is unknown."""
    alive = proc.own_identity()
    gone = ProcessIdentity(alive.pid, alive.started + 1)  # of a process that had this pid before
    found: list[LostWorker] = []

    class Registered(ScriptedStore):
        def workers_of_host(self, _host: HostIdentity) -> tuple[RegisteredWorker, ...]:
            worker = alive if worker_is_alive else gone
            return (RegisteredWorker("w0", worker, alive if master_is_alive else gone),)

    duty = ResetAbandoned(HostIdentity("host", "boot:1"), period_s=1, on_lost=found.append)
    duty.run(cast(StewardStore, Registered()))
    expected = [("w0", None, True, False)] * (not worker_is_alive and not master_is_alive)
    assert [(lost.worker_id, lost.started, lost.charge_all, lost.refund) for lost in found] == expected


def test_a_renewed_lease_counts_from_the_request_and_for_less_than_it_lasts(
    host: Host,
) -> None:
    """The lease counts from the request, however long the server takes to answer."""
    host.add_worker(0)
    host.scripted.renewal_takes_s = 0.3
    began_ns = boottime_ns()
    host.renew.run(host.store)
    believed_s = (host.said_of(0).lease_end_ns - began_ns) / 1e9
    assert 50 <= believed_s < 50.25
