"""What a steward says of its workers on the scoreboard, with a database that is made up."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection, Iterator
from typing import Any, cast

import pytest

from reproq_prefork import duties, processes
from reproq_prefork.duties import AwaitNewRuns, Look, NoticeCancels, RenewLeases
from reproq_prefork.log import Log, LogFormat, LogLevel
from reproq_prefork.scoreboard import LeaseRecord, Scoreboard, WorkerRecord, WorkerState, boottime_ns
from reproq_prefork.signals import CANCEL_SIGNAL
from reproq_prefork.store.steward_store import RunToCancel, Sight, StewardStore
from tests.children import exit_status_of, forked, sleep_for_ever

STEWARD = 1


class ScriptedStore:
    """Says what a test has set; `asked` is what it was asked."""

    def __init__(self) -> None:
        self.cancelled: list[RunToCancel] = []
        self.runs_are_due = False
        self.is_finish_due = False
        self.asked: list[Any] = []
        self.renewal_takes_s = 0.0

    def look(self, worker_ids: Collection[str], *, announces: bool) -> Sight:
        self.asked.append((sorted(worker_ids), announces))
        to_cancel = tuple(run for run in self.cancelled if run.worker_id in worker_ids)
        return Sight(self.runs_are_due, self.is_finish_due, to_cancel)

    def renew_leases(self, worker_ids: Collection[str], *, lease_s: float) -> frozenset[str]:
        time.sleep(self.renewal_takes_s)
        return frozenset(worker_ids)

    def await_new_runs(self) -> None:
        self.asked.append("await")

    def ignore_new_runs(self) -> None:
        self.asked.append("ignore")


class Host:
    """A scoreboard with workers, all in this process."""

    def __init__(self) -> None:
        self.scripted = ScriptedStore()
        self.store = cast(StewardStore, self.scripted)
        self.board = Scoreboard(slots=3, stewards=2)
        self.log_reader, writer = os.pipe()
        self.log = Log(LogLevel.DEBUG, LogFormat.JSON, fd=writer)
        self._log_writer = writer
        self.notice = NoticeCancels(self.board, STEWARD, log=self.log)
        self.woken: list[str] = []
        self.look = self.make_look(announces=False)
        self.renew = RenewLeases(self.board, STEWARD, period_s=1, lease_s=60, believed_lease_s=50)

    def make_look(self, *, announces: bool) -> Look:
        return Look(
            self.board,
            STEWARD,
            period_s=1,
            announces=announces,
            wake=lambda: self.woken.append("all"),
            wake_one=lambda: self.woken.append("one"),
            cancels=self.notice,
        )

    def add_worker(self, slot: int, **changes: Any) -> None:
        process = processes.own_identity()
        record: dict[str, Any] = {
            "incarnation": 10 + slot,
            "pid": process.pid,
            "pid_started": process.started,
            "steward": STEWARD,
            "state": WorkerState.BUSY,
            "lease_end_ns": boottime_ns() + 10**12,
            "worker_id": f"w{slot}",
        }
        self.board.write_worker(slot, WorkerRecord(**(record | changes)))

    def close(self) -> None:
        os.close(self.log_reader)
        os.close(self._log_writer)


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


def test_a_worker_is_told_of_its_run_once_by_the_scoreboard_and_a_signal(
    host: Host, signals: list[int]
) -> None:
    host.add_worker(0, run_id=7, claim=2)
    host.add_worker(1, run_id=8, claim=1)
    host.scripted.cancelled = [RunToCancel("w0", 7, 2)]
    host.look.run(host.store)
    host.look.run(host.store)
    assert host.board.lease_of(0, 10).cancelled_run == (7, 2)
    assert host.board.lease_of(1, 11).cancelled_run is None
    assert signals == [CANCEL_SIGNAL]
    assert b"run 7 was cancelled" in os.read(host.log_reader, 4096)


def test_a_worker_that_hears_nothing_of_it_is_killed_in_the_end(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    with forked(sleep_for_ever) as deaf:
        process = processes.identity_of(deaf.pid)
        assert process is not None
        host.add_worker(0, run_id=7, claim=2, pid=process.pid, pid_started=process.started)
        host.scripted.cancelled = [RunToCancel("w0", 7, 2)]
        for _ in range(3):
            host.look.run(host.store)
        assert deaf.exitcode is None, "it has some time"
        monkeypatch.setattr(duties, "CANCEL_PATIENCE_S", 0.0)
        host.add_worker(0, run_id=8, claim=1, pid=process.pid, pid_started=process.started)
        host.look.run(host.store)
        assert deaf.exitcode is None, "it is at another run by now"
        host.add_worker(0, run_id=7, claim=2, pid=process.pid, pid_started=process.started)
        host.look.run(host.store)
        assert exit_status_of(deaf) == -signal.SIGKILL


def test_a_renewal_keeps_what_was_said_of_a_cancel_and_a_cancel_what_was_said_of_the_lease(
    host: Host,
) -> None:
    host.add_worker(0, run_id=7, claim=2)
    host.renew.run(host.store)
    renewed = host.board.read_lease(0)
    assert renewed is not None
    host.scripted.cancelled = [RunToCancel("w0", 7, 2)]
    host.look.run(host.store)
    assert host.board.read_lease(0) == LeaseRecord(10, renewed.lease_end_ns, False, 7, 2)
    host.renew.run(host.store)
    assert host.board.lease_of(0, 10).cancelled_run == (7, 2)
    assert host.board.lease_of(0, 10).lease_end_ns >= renewed.lease_end_ns


def test_a_claim_that_is_not_shown_yet_is_cancelled_before_it_starts(host: Host) -> None:
    host.add_worker(0, state=WorkerState.IDLE)
    host.scripted.cancelled = [RunToCancel("w0", 7, 2)]
    host.look.run(host.store)
    assert host.board.lease_of(0, 10).cancelled_run == (7, 2)


def test_of_two_runs_it_is_told_of_the_one_it_is_at(host: Host) -> None:
    host.add_worker(0, run_id=8, claim=1)
    host.scripted.cancelled = [RunToCancel("w0", 7, 2), RunToCancel("w0", 8, 1)]
    host.look.run(host.store)
    assert host.board.lease_of(0, 10).cancelled_run == (8, 1)


def test_the_next_run_that_is_cancelled_takes_the_place_of_the_one_before(
    host: Host, signals: list[int]
) -> None:
    for run_id in (7, 8):
        host.add_worker(0, run_id=run_id, claim=1)
        host.scripted.cancelled = [RunToCancel("w0", run_id, 1)]
        host.look.run(host.store)
        assert host.board.lease_of(0, 10).cancelled_run == (run_id, 1)
    assert len(signals) == 2


def test_only_live_workers_of_its_own_are_asked_about(host: Host) -> None:
    with forked(lambda: 0) as child:
        gone = child.pid
    host.add_worker(0, steward=STEWARD - 1)
    host.add_worker(1, pid=gone)
    host.look.run(host.store)
    host.add_worker(2)
    host.look.run(host.store)
    assert host.scripted.asked == [([], False), (["w2"], False)]


def test_a_cancel_concerns_it_where_it_names_a_worker_of_its_own(host: Host) -> None:
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
def test_what_is_due_wakes_all_and_an_end_that_is_to_be_told_wakes_one(
    host: Host, announces: bool, runs_are_due: bool, is_finish_due: bool, woken: list[str]
) -> None:
    host.scripted.runs_are_due, host.scripted.is_finish_due = runs_are_due, is_finish_due
    host.make_look(announces=announces).run(host.store)
    assert host.woken == woken
    assert host.scripted.asked == [([], announces)]


def test_a_close_look_comes_soon_and_less_and_less_often(host: Host) -> None:
    assert host.look.period_s == 1
    host.look.look_closely()
    periods = []
    for _ in range(8):
        periods.append(host.look.period_s)
        host.look.run(host.store)
    assert periods == pytest.approx([0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1, 1])


class TestAwaitNewRuns:
    """Messages are asked for while a worker is idle, and no more once many have found none."""

    @pytest.fixture
    def resumed(self) -> list[bool]:
        return []

    @pytest.fixture
    def awaits(self, host: Host, resumed: list[bool]) -> AwaitNewRuns:
        return AwaitNewRuns(host.board, STEWARD, resumed=lambda: resumed.append(True))

    def test_they_are_asked_for_once_a_worker_is_idle(
        self, host: Host, awaits: AwaitNewRuns, resumed: list[bool]
    ) -> None:
        awaits.connected(can_hear=True)
        host.add_worker(0)
        host.add_worker(1, state=WorkerState.IDLE, steward=STEWARD - 1)
        awaits.again_if_idle(host.store)
        assert awaits.is_watching()
        assert host.scripted.asked == []
        host.add_worker(2, state=WorkerState.IDLE)
        for _ in range(2):
            awaits.again_if_idle(host.store)
        assert not awaits.is_watching()
        assert host.scripted.asked == ["await"]
        assert resumed == [True]

    def test_nobody_waits_for_them_behind_a_pooler_or_without_a_connection(
        self, host: Host, awaits: AwaitNewRuns
    ) -> None:
        host.add_worker(0, state=WorkerState.IDLE)
        awaits.again_if_idle(host.store)
        awaits.connected(can_hear=False)
        awaits.again_if_idle(host.store)
        awaits.heard(host.store, 10**6)
        assert not awaits.is_watching()
        assert host.scripted.asked == []

    def test_many_in_a_row_that_find_nobody_idle_are_enough(self, host: Host, awaits: AwaitNewRuns) -> None:
        awaits.connected(can_hear=True)
        host.add_worker(0, state=WorkerState.IDLE)
        awaits.again_if_idle(host.store)
        host.add_worker(0, state=WorkerState.BUSY)
        awaits.heard(host.store, duties.USELESS_MESSAGES - 1)
        host.add_worker(0, state=WorkerState.IDLE)
        awaits.heard(host.store, 1)
        host.add_worker(0, state=WorkerState.SETTLING)
        awaits.heard(host.store, duties.USELESS_MESSAGES - 1)
        assert host.scripted.asked == ["await"]
        awaits.heard(host.store, 1)
        awaits.heard(host.store, 1)
        assert host.scripted.asked == ["await", "ignore"]
        assert awaits.is_watching()
        host.add_worker(0, state=WorkerState.IDLE)
        awaits.again_if_idle(host.store)
        assert host.scripted.asked == ["await", "ignore", "await"]

    def test_a_new_connection_begins_anew(self, host: Host, awaits: AwaitNewRuns) -> None:
        host.add_worker(0, state=WorkerState.IDLE)
        for _ in range(2):
            awaits.connected(can_hear=True)
            awaits.again_if_idle(host.store)
        assert host.scripted.asked == ["await", "await"]


def test_a_renewed_lease_is_believed_for_less_than_it_lasts_and_from_before_it_was_asked_for(
    host: Host,
) -> None:
    """However long the server takes to answer: the lease counts from when it was given."""
    host.add_worker(0)
    host.scripted.renewal_takes_s = 0.3
    began_ns = boottime_ns()
    host.renew.run(host.store)
    believed_s = (host.board.lease_of(0, 10).lease_end_ns - began_ns) / 1e9
    assert 50 <= believed_s < 50.25
