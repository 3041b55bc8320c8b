"""The ledger's loop against a server that is made up, and that answers each statement in whatever way it may.

Whatever the answers are, every attempt is recorded exactly once, as it was or by a smaller end, or it is lost with
the lease; and nothing stays held that the worker does not know of.
"""

from __future__ import annotations

import contextlib
import enum
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reproq_prefork.model.run import ClaimedRun, Status
from reproq_prefork.model.settlement import RetryPolicy, Settlement
from reproq_prefork.store.deadline import ServerProcess
from reproq_prefork.store.outcomes import (
    ConnectionLost,
    ServerShort,
    StatementRefused,
    StatementTimedOut,
    ValueRefused,
)
from reproq_prefork.store.worker_store import ChangeableRun, Claim, ClaimedAlone, WorkerStore
from reproq_prefork.text.log import Log, LogFormat, LogLevel
from reproq_prefork.unix.panel import WorkerPanel
from reproq_prefork.unix.scoreboard import MAX_UNRECORDED, Scoreboard, WorkerRecord, WorkerState, boottime_ns
from reproq_prefork.worker import claiming, database, link, lone_claims, reconciling, recording
from reproq_prefork.worker.claiming import LeaseLost
from reproq_prefork.worker.database import Ledger
from tests.support.examples import examples
from tests.support.fakes.orders import ScriptedOrders
from tests.support.fakes.runs import RUN

Token = tuple[int, int]
LEASE_S = 30.0


class Answer(enum.Enum):
    """What becomes of a statement."""

    OK = "it is done"
    LOST_BEFORE = "the connection broke before the server had it"
    LOST_AFTER = "the server has done it, and the connection broke"
    LOST_LATE = "the server does it later, and the connection broke"
    REFUSED = "the server refuses it"
    TIMED_OUT = "it takes too long"
    SHORT = "the server lacks room for it"
    VALUE_REFUSED = "the server refuses a value"


ERRORS = {
    Answer.REFUSED: StatementRefused("locked"),
    Answer.TIMED_OUT: StatementTimedOut("too long"),
    Answer.SHORT: ServerShort("no space left on device"),
    Answer.VALUE_REFUSED: ValueRefused("no such value"),
}
LOST = frozenset({Answer.LOST_BEFORE, Answer.LOST_AFTER, Answer.LOST_LATE})


class Clock:
    """In place of the module `time`."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.after_wait: Callable[[], None] = lambda: None

    def monotonic(self) -> float:
        self.now_s += 0.001
        return self.now_s

    def wait(self, _fds: Sequence[int], seconds: float) -> None:
        self.now_s += seconds
        self.after_wait()


class Server:
    """Its runs, and what it answers. `doomed`: which statuses it takes of a run; the others it takes any of."""

    def __init__(self, clock: Clock, *, pooled: bool) -> None:
        self.clock = clock
        self.answers: Iterator[Answer] = iter(())  # then it does what it is asked
        self.pooled = pooled
        self.pending: list[ClaimedRun] = []
        self.held: set[Token] = set()
        self.claimed: dict[Token, ClaimedRun] = {}  # each by itself
        self.recorded: dict[Token, list[Settlement]] = {}
        self.doomed: dict[int, frozenset[Status]] = {}
        self.locked: set[int] = set()
        self.lock_comes_late = False  # a row is free when it is looked at, and locked when it is written
        self.takes_changes = True
        self.looks = 0
        self.refusals = 0
        self.late: list[tuple[float, list[Settlement], int]] = []
        self.has_lease = True
        self.statements = 0
        self.process = 0
        self.registered = 0

    def commit_late(self) -> None:
        for entry in [entry for entry in self.late if entry[0] <= self.clock.now_s]:
            self.late.remove(entry)
            self.do(entry[1], entry[2])

    def do(self, settlements: Sequence[Settlement], max_runs: int) -> list[ClaimedRun]:
        for settlement in settlements:
            token = settlement.run_id, settlement.claim
            if token in self.held:
                self.held.discard(token)
                self.recorded.setdefault(token, []).append(settlement)
        claimed, self.pending = self.pending[:max_runs], self.pending[max_runs:]
        self.held |= {run.token for run in claimed}
        return claimed

    def refusal(self, settlements: Sequence[Settlement]) -> StatementRefused | None:
        if not self.takes_changes:
            return StatementRefused("the table is locked")
        for settlement in settlements:
            taken = self.doomed.get(settlement.run_id)
            if taken is not None and settlement.status not in taken:
                return StatementRefused("not this run")
        return None


class Connection:
    """One connection to it, as the store of a worker."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.backend = ServerProcess(pid=server.process, pooled=server.pooled)
        server.process += 1
        self._is_lost = False

    def _answer(self) -> Answer:
        self._server.statements += 1
        self._server.commit_late()
        if self._is_lost:
            raise ConnectionLost("the connection is closed")
        answer = next(self._server.answers, Answer.OK)
        if answer in LOST:
            self._is_lost = True
        return answer

    def _simple(self) -> None:
        answer = self._answer()
        if answer in LOST:
            raise ConnectionLost(answer.value)
        if answer in ERRORS:
            raise ERRORS[answer]

    def register(self) -> None:
        pass

    def close(self) -> None:
        self._is_lost = True

    @contextlib.contextmanager
    def in_haste(self) -> Iterator[None]:
        yield

    def end_previous_backend(self, *, within_s: float = 2.0) -> bool:
        self._simple()
        self._server.clock.now_s += within_s if self._server.late else 0.0
        self._server.commit_late()
        return self._server.pooled or not self._server.late

    def held_runs(self) -> frozenset[Token]:
        self._simple()
        return frozenset(self._server.held)

    def reconnected(self, *, old_is_gone: bool = True) -> bool:
        self._simple()
        if old_is_gone:
            self._server.registered = self.backend.pid
        return self._server.has_lease

    def changeable_runs(self, tokens: Sequence[Token]) -> Mapping[Token, ChangeableRun]:
        self._simple()
        self._server.looks += 1
        locked = set() if self._server.lock_comes_late and self._server.looks % 2 else self._server.locked
        return {
            token: ChangeableRun(is_free=token[0] not in locked, is_python=False, is_cancelled=False)
            for token in tokens
            if token in self._server.held
        }

    def next_due_run(self, passed: Collection[int]) -> int | None:
        self._simple()
        return next((run.id for run in self._server.pending if run.id not in passed), None)

    def claim_run(self, run_id: int) -> ClaimedAlone:
        answer = self._answer()
        server = self._server
        server.pending.sort(key=lambda run: run.id != run_id)
        if answer is Answer.LOST_AFTER:
            server.do((), 1)
        elif answer is Answer.LOST_LATE:
            server.late.append((server.clock.now_s + 11.0, [], 1))
        if answer in LOST:
            raise ConnectionLost(answer.value)
        if answer in ERRORS:
            raise ERRORS[answer]
        (run,) = server.do((), 1)
        server.claimed[run.token] = run
        return ClaimedAlone(server.has_lease, run._replace(payload=None))

    def read_claimed(self, token: Token) -> ClaimedRun | None:
        self._simple()
        return self._server.claimed[token] if token in self._server.held else None

    def fail_run(self, run_id: int, why: str) -> None:
        self._simple()
        self._server.pending = [run for run in self._server.pending if run.id != run_id]

    def deregister(self) -> bool:
        self._simple()
        return not self._server.held

    def finish_and_claim(
        self,
        settlements: Sequence[Settlement],
        *,
        max_runs: int,
        places: Any = None,
    ) -> Claim:
        answer = self._answer()
        server = self._server
        refusal = server.refusal(settlements)
        server.refusals += refusal is not None
        if answer in (Answer.LOST_AFTER, Answer.LOST_LATE) and refusal is None:
            if answer is Answer.LOST_AFTER:
                server.do(settlements, max_runs)
            else:
                server.late.append((server.clock.now_s + 11.0, list(settlements), max_runs))
        if answer in LOST:
            raise ConnectionLost(answer.value)
        if answer in ERRORS and (settlements or max_runs or answer is Answer.REFUSED):
            raise ERRORS[answer]
        if refusal is not None:
            raise refusal
        held_before = len(server.held)
        runs = server.do(settlements, max_runs)
        settled = held_before + len(runs) - len(server.held)
        return Claim(settled=settled, holds_lease=server.has_lease, runs=tuple(runs), found=len(runs))


class World:
    """A worker's ledger, and the server that it is connected to."""

    def __init__(self, clock: Clock, *, pooled: bool) -> None:
        self.clock = clock
        self.server = Server(clock, pooled=pooled)
        self.orders = ScriptedOrders()
        self.board = Scoreboard(slots=1, stewards=1)
        self.panel = WorkerPanel(self.board, 0, WorkerRecord(incarnation=1))
        self._log_fd = os.open(os.devnull, os.O_WRONLY)
        self.ledger = Ledger(
            connect=lambda: cast(WorkerStore, Connection(self.server)),
            panel=self.panel,
            orders=self.orders,
            policy=RetryPolicy(1, 2),
            believed_lease_s=LEASE_S,
            log=Log(LogLevel.ERROR, LogFormat.JSON, fd=self._log_fd),
        )
        self.ledger.open()

    def close(self) -> None:
        os.close(self._log_fd)

    def claim(self, count: int) -> list[ClaimedRun]:
        first = 1 + len(self.server.recorded) + len(self.server.held) + len(self.server.pending)
        self.server.pending += [RUN._replace(id=first + number, claim=1) for number in range(count)]
        claimed: list[ClaimedRun] = []
        while len(claimed) < count:
            claimed += self.ledger.turn((), max_runs=count).runs
        return claimed

    def settle(self) -> None:
        """Let time pass until nothing is to be done."""
        until = self.clock.now_s + 700
        while self.clock.now_s < until:
            self.clock.now_s = max(self.clock.now_s, min(self.ledger.tend_at, until))
            self.ledger.tend()

    def unrecorded(self) -> tuple[Token, ...] | None:
        return self.board.unrecorded_of(0, 1)


@pytest.fixture
def made() -> Iterator[World]:
    with world() as made:
        yield made


@contextlib.contextmanager
def world(*, pooled: bool = False) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock()
        for module in (database, link, recording, reconciling, claiming, lone_claims):
            patch.setattr(module, "time", clock)
        patch.setattr(link, "wait_readable", clock.wait)
        made = World(clock, pooled=pooled)
        yield made
        made.close()


def succeeded(run: ClaimedRun) -> Settlement:
    return Settlement(run.id, run.claim, Status.SUCCESSFUL, result='"done"', last_attempt="{}")


# --- whatever the server answers ---


@settings(max_examples=examples(300), deadline=None)
@given(
    batch=st.integers(1, 6),
    answers=st.lists(st.sampled_from(Answer), max_size=40),
    pooled=st.booleans(),
)
def test_every_attempt_is_recorded_once_whatever_the_server_answers(
    batch: int, answers: list[Answer], pooled: bool
) -> None:
    with world(pooled=pooled) as made:
        runs = made.claim(batch)
        made.server.answers = iter(answers)
        made.server.pending = [RUN._replace(id=100, claim=1)]
        turn = made.ledger.turn([succeeded(run) for run in runs], max_runs=1)
        made.ledger.turn([succeeded(run) for run in turn.runs], max_runs=0)
        made.settle()
        made.server.commit_late()
        made.settle()
        assert made.server.held == set(), "nothing is held by nobody"
        for token, settlements in made.server.recorded.items():
            assert len(settlements) == 1 or token[0] == 100, "once"
        for run in runs:
            (settlement,) = made.server.recorded[run.token]
            values_refused = Answer.VALUE_REFUSED in answers
            assert settlement.status is Status.SUCCESSFUL or values_refused
        assert made.unrecorded() == ()


@settings(max_examples=examples(200), deadline=None)
@given(
    batch=st.integers(1, 8),
    doomed=st.dictionaries(
        st.integers(1, 8),
        st.sampled_from([frozenset({Status.FAILED}), frozenset(), frozenset({Status.PENDING})]),
    ),
    answers=st.lists(
        st.sampled_from([Answer.OK, Answer.REFUSED, Answer.LOST_BEFORE, Answer.LOST_AFTER]), max_size=12
    ),
)
def test_the_rest_of_a_batch_is_recorded_and_refused_ends_get_a_smaller_end(
    batch: int, doomed: dict[int, frozenset[Status]], answers: list[Answer]
) -> None:
    with world() as made:
        runs = made.claim(batch)
        made.server.doomed = doomed
        made.server.answers = iter(answers)
        made.ledger.turn([succeeded(run) for run in runs], max_runs=0)
        for run in runs:
            assert answers or run.id in doomed or run.token in made.server.recorded, "at once"
        made.settle()
        for run in runs:
            settlements = made.server.recorded.get(run.token, [])
            taken = doomed.get(run.id)
            if taken is None:
                assert [each.status for each in settlements] == [Status.SUCCESSFUL]
            elif Status.FAILED in taken:
                assert [each.status for each in settlements] == [Status.FAILED]
            else:
                assert settlements == []
        made.server.doomed = {}
        made.settle()
        assert made.server.held == set()
        assert all(len(settlements) == 1 for settlements in made.server.recorded.values())


@pytest.mark.parametrize(
    "answer", [Answer.REFUSED, Answer.TIMED_OUT, Answer.SHORT, Answer.LOST_BEFORE], ids=lambda a: a.name
)
def test_two_thousand_refusals_in_a_row_lose_no_result(answer: Answer) -> None:
    with world() as made:
        runs = made.claim(3)
        made.server.answers = iter([answer] * 2000)
        made.ledger.turn([succeeded(run) for run in runs], max_runs=0)
        assert made.server.statements > 2000
        for run in runs:
            assert [each.status for each in made.server.recorded[run.token]] == [Status.SUCCESSFUL]


def test_two_thousand_unreadable_payloads_in_a_row_are_failed_one_by_one() -> None:
    with world() as made:
        made.server.pending = [RUN._replace(id=number, claim=1) for number in range(1, 2002)]

        def answers() -> Iterator[Answer]:
            yield Answer.VALUE_REFUSED  # the claim of many
            for _ in range(2000):
                yield from (
                    Answer.OK,
                    Answer.OK,
                    Answer.VALUE_REFUSED,
                )  # which is next, its claim, its payload
                yield from (Answer.VALUE_REFUSED, Answer.OK)  # its end with the next claim, and by itself

        made.server.answers = answers()
        turn = made.ledger.turn((), max_runs=1)
        assert len(turn.runs) == 1
        assert len(made.server.recorded) >= 1999


def test_a_worker_whose_lease_ended_meanwhile_records_what_it_can_and_ends() -> None:
    with world() as made:
        runs = made.claim(3)
        made.server.doomed = {runs[1].id: frozenset()}
        made.server.has_lease = False
        made.server.answers = iter([Answer.LOST_BEFORE])
        with pytest.raises(LeaseLost):
            made.ledger.turn([succeeded(run) for run in runs], max_runs=0)
        assert made.server.recorded.keys() == {runs[0].token, runs[2].token}


# --- what is carried along ---


def test_unrecorded_ends_are_on_the_scoreboard_while_the_worker_goes_on() -> None:
    with world() as made:
        runs = made.claim(3)
        made.server.doomed = {runs[0].id: frozenset(), runs[2].id: frozenset()}
        made.server.pending = [RUN._replace(id=100, claim=1)]
        turn = made.ledger.turn([succeeded(run) for run in runs], max_runs=1)
        assert [run.id for run in turn.runs] == [100]
        assert set(made.unrecorded() or ()) == {runs[0].token, runs[2].token}
        made.server.doomed = {}
        made.settle()
        assert made.unrecorded() == ()


def test_a_worker_with_too_many_unrecorded_ends_claims_nothing_until_it_has_fewer() -> None:
    with world() as made:
        runs = made.claim(MAX_UNRECORDED + 1)
        made.server.doomed = {run.id: frozenset({Status.FAILED}) for run in runs}
        made.server.pending = [RUN._replace(id=100, claim=1)]
        began_s = made.clock.now_s
        turn = made.ledger.turn([succeeded(run) for run in runs], max_runs=1)
        assert [run.id for run in turn.runs] == [100]
        assert made.clock.now_s - began_s > 4
        assert [each.status for run in runs for each in made.server.recorded[run.token]] == [
            Status.FAILED
        ] * len(runs)


def test_a_worker_that_can_record_none_of_them_reports_that_it_is_full() -> None:
    with world() as made:
        runs = made.claim(MAX_UNRECORDED + 1)
        made.server.doomed = {run.id: frozenset() for run in runs}
        made.server.pending = [RUN._replace(id=100, claim=1)]
        before = made.ledger.is_full
        assert made.ledger.turn([succeeded(run) for run in runs], max_runs=1).runs == ()
        assert (before, made.ledger.is_full) == (False, True)
        began_s = made.clock.now_s
        made.ledger.leave()
        assert made.clock.now_s - began_s < 2
        assert made.server.held == {run.token for run in runs}
        assert made.panel.record.state is not WorkerState.STOPPED, "its steward is to see to them"


def test_a_full_disk_is_waited_for_and_costs_no_result() -> None:
    with world() as made:
        (run,) = made.claim(1)

        def answers() -> Iterator[Answer]:
            """The server has no room for what is written; it takes what writes nothing."""
            until = made.clock.now_s + 300
            while made.clock.now_s < until:
                yield Answer.SHORT

        made.server.answers = answers()
        connection = made.ledger._link.store
        made.ledger.turn([succeeded(run)], max_runs=0)
        assert connection is made.ledger._link.store
        made.settle()
        (settlement,) = made.server.recorded[run.token]
        assert settlement.status is Status.SUCCESSFUL


# --- whose fault it is ---


def test_a_worker_waits_for_a_server_that_refuses_changes_and_fails_no_run() -> None:
    """Meanwhile its tables can be read and rows can be locked."""
    with world() as made:
        runs = made.claim(3)
        made.server.takes_changes = False
        ends_at_s = made.clock.now_s + 120

        def look() -> None:
            made.server.takes_changes = made.clock.now_s > ends_at_s
            assert made.unrecorded() == ()

        made.clock.after_wait = look
        made.ledger.turn([succeeded(run) for run in runs], max_runs=0)
        for run in runs:
            assert made.server.recorded[run.token] == [succeeded(run)]


@pytest.mark.parametrize("comes_late", [False, True])
def test_the_end_of_a_locked_row_is_recorded_unchanged(comes_late: bool) -> None:
    with world() as made:
        runs = made.claim(2)
        made.server.doomed = {runs[0].id: frozenset({Status.FAILED})}  # the lock may end between two tries
        made.server.locked, made.server.lock_comes_late = {runs[0].id}, comes_late
        made.server.looks = 1
        made.ledger.turn([succeeded(run) for run in runs], max_runs=0)
        assert made.server.recorded.keys() == {runs[1].token}
        made.settle()
        made.server.doomed, made.server.locked = {}, set()
        made.settle()
        assert made.server.recorded[runs[0].token] == [succeeded(runs[0])]


def test_a_batch_does_not_wait_for_each_locked_row_in_turn(made: World) -> None:
    """A statement that meets a locked row takes two seconds."""
    runs = made.claim(64)
    made.server.locked = {run.id for run in runs[::4]}
    made.server.doomed = {run_id: frozenset() for run_id in made.server.locked}
    made.server.refusals = 0
    made.ledger.turn([succeeded(run) for run in runs], max_runs=0)
    assert len(made.server.recorded) == 48
    made.clock.now_s += 60
    made.ledger.tend()
    assert made.server.refusals == 2


def test_a_worker_does_not_wait_for_locked_rows_for_ever_when_it_leaves(made: World) -> None:
    (run,) = made.claim(1)
    made.server.doomed, made.server.locked = {run.id: frozenset()}, {run.id}
    made.ledger.turn([succeeded(run)], max_runs=0)
    began_s = made.clock.now_s
    made.ledger.leave()
    assert 4 < made.clock.now_s - began_s < 7


def test_a_cancel_of_a_run_with_an_unrecorded_end_takes_effect_at_once(made: World) -> None:
    (run,) = made.claim(1)
    made.server.doomed = {run.id: frozenset({Status.CANCELLED, Status.FAILED})}
    made.ledger.turn([succeeded(run)], max_runs=0)
    began_s = made.clock.now_s
    assert made.ledger.tend_at > began_s
    made.board.update_lease(0, made.panel.record, cancel_run_id=run.id, cancel_claim=run.claim)
    assert made.ledger.tend_at <= began_s
    made.ledger.tend()
    assert [each.status for each in made.server.recorded[run.token]] == [Status.CANCELLED]


def test_a_worker_that_is_to_drain_claims_nothing(made: World) -> None:
    (run,) = made.claim(1)
    made.server.pending = [RUN._replace(id=100)]
    made.orders.drain = True
    assert made.ledger.turn([succeeded(run)], max_runs=1).runs == ()
    assert made.server.recorded.keys() == {run.token}


# --- when it is asked what is held ---


def statements_of(made: World, patch: pytest.MonkeyPatch) -> list[str]:
    """The names of those that are sent from now on."""
    sent: list[str] = []

    def noted(name: str) -> Any:
        method = getattr(Connection, name)

        def wrapper(self: Connection, *arguments: Any, **options: Any) -> Any:
            sent.append(name)
            return method(self, *arguments, **options)

        return wrapper

    for name in ("finish_and_claim", "end_previous_backend", "held_runs", "reconnected"):
        patch.setattr(Connection, name, noted(name))
    return sent


def test_after_a_lost_connection_the_old_server_process_is_ended_before_held_runs_are_read(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = statements_of(made, monkeypatch)
    made.server.answers = iter([Answer.LOST_BEFORE])
    made.ledger.turn((), max_runs=1)
    assert sent[:4] == ["finish_and_claim", "end_previous_backend", "held_runs", "reconnected"]


def test_if_the_old_server_process_is_gone_the_answer_is_final(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.server.answers = iter([Answer.LOST_BEFORE])
    made.ledger.turn((), max_runs=1)
    assert made.ledger.asks_amid_task_in_s == float("inf")
    sent = statements_of(made, monkeypatch)
    made.clock.now_s += LEASE_S / 2
    made.ledger.tend()
    assert sent == []


def test_held_runs_are_read_each_second_until_the_old_server_process_is_gone(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.server.late = [(made.clock.now_s + 1000.0, [], 0)]
    made.server.answers = iter([Answer.LOST_BEFORE])
    made.ledger.turn((), max_runs=1)
    sent = statements_of(made, monkeypatch)
    assert made.server.registered == 0, "whoever has to see it gone finds it there"
    for _ in range(5):
        assert made.ledger.asks_amid_task_in_s <= 1.0
        made.clock.now_s += 1.1
        made.ledger.tend()
    assert sent == ["end_previous_backend", "held_runs"] * 5
    made.server.late.clear()
    made.clock.now_s += 1.1
    made.ledger.tend()
    assert sent[10:] == ["end_previous_backend", "reconnected", "held_runs"]
    assert made.server.registered == 1
    assert made.ledger.asks_amid_task_in_s == float("inf")


def test_behind_a_pooler_held_runs_are_read_each_second_for_longer_than_a_statement_may_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with world(pooled=True) as made:
        made.server.answers = iter([Answer.LOST_BEFORE])
        made.ledger.turn((), max_runs=1)
        sent = statements_of(made, monkeypatch)
        began_s = made.clock.now_s
        while made.ledger.asks_amid_task_in_s < float("inf"):
            made.clock.now_s += 1.0
            made.ledger.tend()
        assert 29 <= made.clock.now_s - began_s <= 32
        assert 25 <= sent.count("held_runs") <= 32
        assert set(sent) == {"held_runs"}


def test_a_worker_without_a_lost_connection_reads_its_held_runs_once_in_each_lease(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = statements_of(made, monkeypatch)
    ends_at_s = made.clock.now_s + 10 * LEASE_S
    while made.clock.now_s < ends_at_s:
        made.clock.now_s = made.ledger.tend_at
        made.ledger.tend()
    assert sent == ["held_runs"] * 10


def test_during_a_task_only_unknown_runs_are_handed_back(made: World) -> None:
    runs = made.claim(2)
    made.server.doomed = {runs[0].id: frozenset()}
    made.ledger.turn([succeeded(runs[0])], max_runs=0)
    late = RUN._replace(id=77, claim=5)
    made.server.held.add(late.token)
    made.ledger.ask_amid_task({runs[1].token})
    assert made.server.held == {run.token for run in runs}
    (settlement,) = made.server.recorded[late.token]
    assert (settlement.status, settlement.refunded) == (Status.PENDING, True)


def test_a_worker_that_leaves_while_a_claim_may_be_committed_leaves_that_to_its_steward(made: World) -> None:
    made.server.late = [(made.clock.now_s + 1000.0, [], 0)]
    made.server.answers = iter([Answer.LOST_BEFORE])
    made.ledger.turn((), max_runs=1)
    made.ledger.leave()
    assert made.panel.record.state is not WorkerState.STOPPED


def test_a_worker_that_exits_cleanly_shows_it_on_the_scoreboard(made: World) -> None:
    made.server.held.add((77, 5))
    made.ledger.leave()
    assert made.server.held == set()
    assert made.panel.record.state is WorkerState.STOPPED


# --- until when a lease is believed ---


@pytest.mark.parametrize("name", ["register", "finish_and_claim", "claim_run"])
def test_a_lease_counts_from_the_time_of_the_request(
    made: World, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """However long the server takes to answer, the lease counts from the request."""
    if name == "claim_run":  # as after a lost reply
        made.server.answers = iter([Answer.LOST_BEFORE])
    answer = getattr(Connection, name)

    def slow(self: Connection, *arguments: Any, **options: Any) -> Any:
        time.sleep(0.3)
        return answer(self, *arguments, **options)

    monkeypatch.setattr(Connection, name, slow)
    made.server.pending = [RUN]
    began_ns = boottime_ns()
    if name == "register":
        made.ledger.open()
    else:
        assert made.ledger.turn((), max_runs=1).runs == (RUN,)
    believed_s = (made.panel.record.lease_end_ns - began_ns) / 1e9
    assert LEASE_S <= believed_s < LEASE_S + 0.25


def test_a_claim_without_a_run_does_not_extend_the_lease(made: World) -> None:
    believed_ns = made.panel.record.lease_end_ns
    made.ledger.turn((), max_runs=1)
    assert made.panel.record.lease_end_ns == believed_ns


def test_a_claim_shows_a_worker_that_its_lease_has_ended(made: World) -> None:
    made.server.has_lease = False
    with pytest.raises(LeaseLost):
        made.ledger.turn((), max_runs=1)
