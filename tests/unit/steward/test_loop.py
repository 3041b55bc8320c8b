"""What a steward does for a dead worker, with a database that is made up."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from typing import Any, cast

import pytest

from reproq_prefork.errors import DatabaseUnavailable, ExitStatus
from reproq_prefork.model.identity import HostIdentity
from reproq_prefork.model.messages import WorkerReset
from reproq_prefork.model.outcome import FailureKind
from reproq_prefork.model.run import LostWorker, Status
from reproq_prefork.steward import loop as steward_module
from reproq_prefork.steward import one_by_one, reset_lost
from reproq_prefork.steward.loop import Steward
from reproq_prefork.steward.one_by_one import OneByOne
from reproq_prefork.store.deadline import ServerProcess
from reproq_prefork.store.opening import GoesOn
from reproq_prefork.store.outcomes import ServerShort, StatementRefused, ValueRefused
from reproq_prefork.store.steward_store import News, ResetRun, Sight, StewardStore
from reproq_prefork.text.log import Log, LogFormat, LogLevel
from reproq_prefork.unix.channel import Channel
from reproq_prefork.unix.scoreboard import Scoreboard, UnrecordedRecord, WorkerRecord, WorkerState
from reproq_prefork.unix.wake_pipe import WakePipe
from tests.support.fakes.orders import ScriptedOrders
from tests.support.fakes.settings import resolved
from tests.support.unix.children import forked

Token = tuple[int, int]


class Clock:
    """In place of the module `time`."""

    now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


class ScriptedStore:
    """Holds runs of dead workers. `refused`: those that the server does not change; `locked`: by somebody else."""

    def __init__(self) -> None:
        self.backend = ServerProcess(pid=1, pooled=False)
        self.held: dict[str, set[Token]] = {}
        self.registered: set[str] = set()
        self.expired: set[str] = set()  # whose leases are over, so that the sweep takes what they held
        self.is_gone = True  # the server process of each of them
        self.refused: set[int] = set()
        self.refuses_the_end_of: set[int] = set()
        self.locked: set[int] = set()
        self.refuses_all = False
        self.error: Exception = StatementRefused("not this run")
        self.asked: list[str] = []
        self.failed: list[tuple[int, str | None]] = []
        self.lost: list[LostWorker] = []
        self.refusals = 0
        self.looks = 0
        self.socket = -1

    def fileno(self) -> int:
        return self.socket

    def end_backend_of(self, worker_id: str, *, within_s: float = 2.0) -> bool:
        self.asked.append("end_backend_of")
        return self.is_gone or worker_id not in self.registered

    def held_runs(self, worker_id: str) -> tuple[Token, ...]:
        return tuple(sorted(self.held.get(worker_id, ())))

    def expired_runs(self) -> Iterator[Token]:
        yield from sorted(token for worker in self.expired for token in self.held[worker])

    def reset_worker(
        self, lost: LostWorker, *, keep_registration: bool = False, only: Collection[int] | None = None
    ) -> tuple[ResetRun, ...]:
        self.asked.append("reset_worker")
        self.lost.append(lost)
        reset = self._change(self.held.get(lost.worker_id, set()), only)
        if not keep_registration:
            self.registered.discard(lost.worker_id)
        return reset

    def sweep_expired(self, *, only: Collection[int] | None = None) -> tuple[ResetRun, ...]:
        tokens = set(self.expired_runs())
        reset = self._change(tokens, only)
        for worker in self.expired:
            self.held[worker] &= tokens
        return reset

    def _change(self, tokens: set[Token], only: Collection[int] | None) -> tuple[ResetRun, ...]:
        if self.refuses_all:
            raise StatementRefused("locked")
        changed = {token for token in tokens if only is None or token[0] in only}
        if any(token[0] in self.refused | self.locked for token in changed):
            self.refusals += 1
            raise self.error
        tokens -= changed
        return tuple(ResetRun(run_id, Status.PENDING, "default", False) for run_id, _claim in sorted(changed))

    def is_free(self, run_id: int, claim: int) -> bool:
        return run_id not in self.locked

    def fail_lost_run(self, run_id: int, claim: int, reason: str | None) -> tuple[ResetRun, ...]:
        if run_id in self.refuses_the_end_of:
            raise self.error
        self.failed.append((run_id, reason))
        for tokens in self.held.values():
            tokens.discard((run_id, claim))
        return (ResetRun(run_id, Status.FAILED, "default", True),)

    def forget_worker(self, worker_id: str) -> None:
        if not self.held.get(worker_id):
            self.registered.discard(worker_id)

    def can_listen(self) -> bool:
        return True

    def listen(self) -> None:
        pass

    def leave_copy(self) -> None:
        pass

    def forget_waiters(self) -> int:
        return 0

    def news(self) -> News:
        return News()

    def workers_of_host(self, host: HostIdentity) -> tuple[Any, ...]:
        return ()

    def look(self, worker_ids: Collection[str], *, announces: bool) -> Sight:
        self.looks += 1
        return Sight(False, False, ())

    def close(self) -> None:
        pass


class Office:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Clock()
        for module in (steward_module, one_by_one, reset_lost):
            monkeypatch.setattr(module, "time", self.clock)
        self.scripted = ScriptedStore()
        self.store = cast(StewardStore, self.scripted)
        self.is_reachable = True
        self.orders = ScriptedOrders()
        self.master, theirs = Channel.pair()
        self._theirs = theirs
        self._wake = WakePipe()
        self.board = Scoreboard(slots=3, stewards=2)
        self._log_reader, self._log_fd = os.pipe2(os.O_NONBLOCK)
        self.scripted.socket = self._log_reader
        self.log = Log(LogLevel.INFO, LogFormat.CONSOLE, fd=self._log_fd)
        self.steward = Steward(
            settings=resolved(flags={}).settings,
            index=0,
            scoreboard=self.board,
            channel=theirs,
            orders=self.orders,
            wake=self._wake,
            host=HostIdentity("host", "boot:1"),
            connect=self._connect,
            log=self.log,
        )

    def _connect(self, _goes_on: GoesOn) -> StewardStore:
        if not self.is_reachable:
            raise DatabaseUnavailable("here", "gone")
        return self.store

    def lose(self, worker_id: str, *tokens: Token) -> None:
        self.scripted.registered.add(worker_id)
        self.scripted.held[worker_id] = set(tokens)
        self.master.send(LostWorker(worker_id, None, False, False, FailureKind.WORKER_LOST, "it died"))

    def serve(self) -> list[str]:
        """Gives the workers whose slots may be used again."""
        self.steward._hear_master()
        self.steward._serve()
        answers = self.master.receive()
        return [answer.worker_id for answer in answers if isinstance(answer, WorkerReset)]

    def serve_for(self, seconds: float) -> None:
        for _ in range(round(seconds * 2)):
            self.clock.now_s += 0.5
            self.serve()

    def logged(self) -> str:
        try:
            return os.read(self._log_reader, 1 << 16).decode()
        except BlockingIOError:
            return ""

    def close(self) -> None:
        for fd in (self._log_reader, self._log_fd, *self._wake.fds):
            os.close(fd)
        self.master.close()
        self._theirs.close()


@pytest.fixture
def office(monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    office = Office(monkeypatch)
    yield office
    office.close()


# --- the server process of a dead worker ---


def test_a_worker_whose_server_process_is_gone_needs_one_reset(office: Office) -> None:
    office.lose("w", (1, 1))
    assert office.serve() == ["w"]
    office.scripted.asked.clear()
    office.serve_for(40)
    assert office.scripted.asked == []
    assert office.scripted.registered == set()


def test_a_death_that_is_reported_twice_is_answered_once(office: Office) -> None:
    office.lose("w", (1, 1))
    office.lose("w", (1, 1))
    assert office.serve() == ["w"]


def test_the_reset_is_repeated_until_the_server_process_is_gone(office: Office) -> None:
    office.scripted.is_gone = False
    office.lose("w")
    assert office.serve() == ["w"], "the slot is free at once"
    office.serve_for(11)
    assert office.scripted.registered == {"w"}, "it names the server process"
    office.scripted.held["w"] = {(1, 1)}  # its claim is committed at last
    office.serve_for(5)
    assert office.scripted.held["w"] == set()
    office.scripted.is_gone = True
    office.serve_for(5)
    office.scripted.asked.clear()
    office.serve_for(40)
    assert office.scripted.asked == []
    assert office.scripted.registered == set()


def test_repeated_reports_of_a_death_do_not_repeat_the_reset_for_ever(office: Office) -> None:
    """A new master reports it each time that it looks for dead workers that are still registered."""
    office.scripted.is_gone = False
    office.lose("w", (1, 1))
    office.serve()
    for _ in range(12):
        office.serve_for(5)
        if office.scripted.registered:
            office.lose("w")
    assert office.scripted.registered == set()


@pytest.mark.parametrize("refused", [set(), {1}])
def test_a_reset_is_not_repeated_for_ever(office: Office, refused: set[int]) -> None:
    """After that, the sweep resets the remaining runs."""
    office.scripted.is_gone = False
    office.scripted.refused = office.scripted.refuses_the_end_of = refused
    office.lose("w", (1, 1))
    office.serve()
    office.serve_for(60)
    office.scripted.asked.clear()
    office.serve_for(40)
    assert office.scripted.asked == []


def test_behind_a_pooler_the_reset_is_repeated_for_longer_than_a_statement_may_take(office: Office) -> None:
    office.scripted.backend = ServerProcess(pid=1, pooled=True)
    office.lose("w")
    assert office.serve() == ["w"]
    office.serve_for(25)
    office.scripted.held["w"] = {(1, 1)}
    office.serve_for(10)
    assert office.scripted.held["w"] == set()
    assert "end_backend_of" not in office.scripted.asked, "it is not the worker's alone"


def test_a_steward_that_is_told_to_quit_first_resets_the_runs_of_dead_workers(office: Office) -> None:
    office.serve()
    office.lose("w", (1, 1))
    office.orders.quit = True
    assert office.steward.run() is ExitStatus.OK
    assert office.scripted.held["w"] == set()


def test_a_steward_without_a_database_quits_without_a_reset(office: Office) -> None:
    office.is_reachable = False
    office.lose("w", (1, 1))
    office.orders.quit = True
    assert office.steward.run() is ExitStatus.OK


# --- workers whose master is gone ---


def dead_worker(slot: int, **changes: Any) -> WorkerRecord:
    with forked(lambda: 0) as child:
        pid = child.pid
    record: dict[str, Any] = {
        "incarnation": 10 + slot,
        "pid": pid,
        "pid_started": 1,
        "state": WorkerState.BUSY,
        "run_id": 7,
        "claim": 2,
        "lease_end_ns": 10**12,
        "worker_id": f"w{slot}",
    }
    return WorkerRecord(**(record | changes))


def test_runs_of_workers_without_a_master_are_reset_unless_the_worker_exited_cleanly(
    office: Office,
) -> None:
    office.board.write_worker(0, dead_worker(0))
    office.board.write_unrecorded(0, UnrecordedRecord(10, ((5, 1), (6, 1))))
    office.board.write_worker(1, dead_worker(1, state=WorkerState.STOPPED))
    office.board.write_worker(2, dead_worker(2, steward=1))
    office.steward._end_orphaned_workers()
    assert office.scripted.lost == [
        LostWorker(
            "w0",
            (7, 2),
            charge_all=False,
            refund=True,
            kind=FailureKind.SHUTDOWN,
            message="the worker's master died",
            unrecorded=((5, 1), (6, 1)),
        )
    ]


def test_if_the_unrecorded_ends_of_such_a_worker_are_unknown_all_its_runs_may_have_started(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker died during the write of its record. A run that may start only once must not start again."""
    office.board.write_worker(0, dead_worker(0, run_id=0))
    monkeypatch.setattr(office.board, "unrecorded_of", lambda slot, incarnation: None)
    office.steward._end_orphaned_workers()
    assert [(lost.worker_id, lost.charge_all) for lost in office.scripted.lost] == [("w0", True)]


# --- a run that cannot be changed ---


def test_a_run_that_cannot_be_reset_blocks_no_other_run_worker_or_slot(office: Office) -> None:
    office.scripted.refused = office.scripted.refuses_the_end_of = {2}
    office.lose("w", (1, 1), (2, 1), (3, 1))
    office.lose("x", (4, 1))
    assert office.serve() == ["w", "x"]
    assert office.scripted.held == {"w": {(2, 1)}, "x": set()}
    office.serve_for(60)
    assert office.scripted.held["w"] == {(2, 1)}
    assert office.logged().count("run 2 cannot be put back") == 1


def test_a_run_whose_reset_is_refused_for_a_while_is_reset_later(office: Office) -> None:
    office.scripted.refused = {2}
    office.lose("w", (1, 1), (2, 1))
    office.serve()
    office.serve_for(5)
    office.scripted.refused = set()
    office.serve_for(5)
    assert office.scripted.held["w"] == set()
    assert office.scripted.failed == []
    assert office.scripted.registered == set()


@pytest.mark.parametrize("error", [StatementRefused("not this run"), ValueRefused("breaks a constraint")])
def test_a_run_whose_reset_is_refused_again_and_again_is_failed_with_the_reason(
    office: Office, error: Exception
) -> None:
    office.scripted.refused, office.scripted.error = {2}, error
    office.lose("w", (2, 1))
    office.serve()
    office.serve_for(40)
    ((run_id, reason),) = office.scripted.failed
    assert run_id == 2
    assert reason is not None
    assert str(error) in reason


@pytest.mark.parametrize("how", ["locked", "short"])
def test_a_locked_row_and_a_full_disk_fail_nothing(office: Office, how: str) -> None:
    if how == "locked":
        office.scripted.locked = {2}
    else:
        office.scripted.refused, office.scripted.error = {2}, ServerShort("no space left on device")
    office.lose("w", (1, 1), (2, 1))
    assert office.serve() == ["w"]
    office.serve_for(25)
    assert office.scripted.held["w"] == {(2, 1)}
    office.scripted.locked, office.scripted.refused = set(), set()
    office.serve_for(10)
    assert office.scripted.held["w"] == set()
    assert office.scripted.failed == []


@pytest.mark.parametrize("tokens", [[], [(1, 1), (2, 1)]])
def test_a_server_that_refuses_every_change_fails_no_run(office: Office, tokens: list[Token]) -> None:
    office.scripted.refuses_all = True
    office.lose("w", *tokens)
    assert office.serve() == []
    office.serve_for(60)  # a look each 0.75 to 1.25 s, at steps of half a second: 40 at least
    assert office.scripted.failed == []
    assert office.scripted.looks > 30, "the other duties are done meanwhile"
    office.scripted.refuses_all = False
    assert office.serve() == ["w"]
    assert office.scripted.held["w"] == set()


def test_an_expired_run_that_cannot_be_reset_does_not_block_the_others(office: Office) -> None:
    office.scripted.refused = office.scripted.refuses_the_end_of = {500}
    office.scripted.held = {"gone": {(run_id, 1) for run_id in range(1, 1001)}}
    office.scripted.expired = {"gone"}
    sweeps = OneByOne(office.log)

    def sweep() -> int:
        done = sweeps.do(
            office.store,
            lambda only: office.store.sweep_expired(only=only),
            office.store.expired_runs,
            may_fail=True,
        )
        return len(done.runs)

    assert sweep() == 999
    office.scripted.refusals = 0
    for _ in range(100):
        office.clock.now_s += 5
        office.scripted.held["gone"].add((2000, 1))
        assert sweep() == 1
    assert office.logged().count("run 500 cannot be put back") == 1
    assert office.scripted.refusals < 30, "less and less often"
    office.scripted.refused = set()
    office.clock.now_s += 61
    assert sweep() == 1
