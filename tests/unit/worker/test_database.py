"""The ledger, with a database that is made up: what it does about trouble that cannot be timed from outside."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from reproq_prefork.errors import DatabaseUnavailable
from reproq_prefork.model.run import ClaimedRun, Place, Status, UnreadableRun
from reproq_prefork.model.settlement import RetryPolicy, Settlement
from reproq_prefork.store.deadline import ServerProcess
from reproq_prefork.store.outcomes import ConnectionLost, StatementRefused, StatementTimedOut, ValueRefused
from reproq_prefork.store.worker_store import ChangeableRun, Claim, ClaimedAlone, WorkerStore
from reproq_prefork.text.log import Log, LogFormat, LogLevel
from reproq_prefork.unix.panel import WorkerPanel
from reproq_prefork.unix.scoreboard import Scoreboard, WorkerRecord, WorkerState
from reproq_prefork.worker import link as link_module
from reproq_prefork.worker.claiming import LeaseLost, Turn
from reproq_prefork.worker.database import Ledger
from reproq_prefork.worker.link import ToldToStop
from tests.support.fakes.orders import ScriptedOrders
from tests.support.fakes.runs import RUN, enqueued_at

Troubles = dict[str, list[Exception]]

ENDED = Settlement(RUN.id, RUN.claim, Status.SUCCESSFUL, result="1")


class ScriptedStore:
    """Meets the `troubles` that a test has set, one a call of the method they are set for."""

    backend = ServerProcess(pid=1, pooled=False)

    def __init__(self, troubles: Troubles, calls: list[str]) -> None:
        self._troubles = troubles
        self._calls = calls
        self.holds_lease = True

    def __getattr__(self, name: str) -> Callable[..., Any]:
        answers = {
            "take_finish_due": 7,
            "held_runs": frozenset(),
            "reconnected": True,
            "end_previous_backend": True,
            "deregister": True,
        }

        def method(*arguments: Any, **options: Any) -> Any:
            self._calls.append(name)
            if self._troubles.get(name):
                raise self._troubles[name].pop(0)
            return answers.get(name)

        return method


class Setting:
    def __init__(self) -> None:
        self.orders = ScriptedOrders()
        self.troubles: Troubles = {}
        self.calls: list[str] = []
        self.panel = WorkerPanel(Scoreboard(slots=1, stewards=1), 0, WorkerRecord(incarnation=1))
        self._log_fd = os.open(os.devnull, os.O_WRONLY)
        self.ledger = Ledger(
            connect=self._connect,
            panel=self.panel,
            orders=self.orders,
            policy=RetryPolicy(1, 2),
            believed_lease_s=50,
            log=Log(LogLevel.DEBUG, LogFormat.JSON, fd=self._log_fd),
        )

    def _connect(self) -> WorkerStore:
        self.calls.append("connect")
        if self.troubles.get("connect"):
            raise self.troubles["connect"].pop(0)
        return cast(WorkerStore, ScriptedStore(self.troubles, self.calls))

    def opened(self) -> Ledger:
        self.ledger.open()
        self.panel.update(state=WorkerState.IDLE)
        self.calls.clear()
        return self.ledger

    def close(self) -> None:
        os.close(self._log_fd)


@pytest.fixture
def setting() -> Iterator[Setting]:
    setting = Setting()
    yield setting
    setting.close()


# --- registering ---


@pytest.mark.parametrize("has_lease", [True, False])
def test_an_existing_registration_is_used_while_its_lease_lasts(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, has_lease: bool
) -> None:
    """An earlier try was committed, and its reply was lost."""
    monkeypatch.setattr(ScriptedStore, "reconnected", lambda store, **_options: has_lease, raising=False)
    setting.troubles["register"] = [ConnectionLost("gone"), ValueRefused("there is such a worker")]
    if has_lease:
        setting.ledger.open()
        assert setting.panel.record.lease_end_ns > 0
    else:
        with pytest.raises(LeaseLost):
            setting.ledger.open()


# --- told to stop at once ---


@pytest.mark.parametrize("delay_s", [60.0, 0.05])
def test_a_worker_that_is_told_to_stop_at_once_does_not_wait_longer_than_its_patience(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, delay_s: float
) -> None:
    ledger = setting.opened()
    monkeypatch.setattr(link_module, "QUIT_PATIENCE_S", 0.4)
    monkeypatch.setattr(link_module, "reconnect_delays_s", lambda: itertools.repeat(delay_s))
    setting.troubles["finish_and_claim"] = [ConnectionLost("gone")]
    setting.troubles["connect"] = [DatabaseUnavailable("here", "gone") for _ in range(100)]
    setting.orders.drain = setting.orders.quit = True
    started = time.monotonic()
    with pytest.raises(ToldToStop, match="could not be recorded"):
        ledger.turn([ENDED], max_runs=0)
    assert 0.4 <= time.monotonic() - started < 5
    assert setting.calls.count("connect") > 1 or delay_s > 1, "it goes on trying meanwhile"


# --- a payload that takes longer to read than a statement may ---


class SlowToRead(ScriptedStore):
    """Claims the run again and again; `recorded` is what was written of it."""

    def __init__(self, troubles: Troubles, calls: list[str]) -> None:
        super().__init__(troubles, calls)
        self.claimed = RUN
        self.held: frozenset[tuple[int, int]] = frozenset()
        self.recorded: list[Settlement] = []
        self.claims: list[str] = []

    def held_runs(self) -> frozenset[tuple[int, int]]:
        return self.held

    def finish_and_claim(
        self, settlements: Sequence[Settlement], *, max_runs: int, places: Any = None
    ) -> Claim:
        if max_runs:
            self.claims.append("many")
        if max_runs and self._troubles.get("claim"):
            raise self._troubles["claim"].pop(0)
        self.recorded += settlements
        self.held -= {(settlement.run_id, settlement.claim) for settlement in settlements}
        runs = (self.claimed,) if max_runs else ()
        self.held |= {run.token for run in runs}
        return Claim(settled=len(settlements), holds_lease=True, runs=runs, found=len(runs))

    def next_due_run(self, passed: Collection[int]) -> int:
        return self.claimed.id

    def claim_run(self, run_id: int) -> ClaimedAlone:
        self.claims.append("alone")
        self.held |= {self.claimed.token}
        return ClaimedAlone(True, self.claimed._replace(payload=None))

    def read_claimed(self, token: tuple[int, int]) -> ClaimedRun:
        if self._troubles.get("read_claimed"):
            raise self._troubles["read_claimed"].pop(0)
        return self.claimed


@pytest.mark.parametrize("trouble", [ConnectionLost("no answer"), StatementTimedOut("too long")])
def test_a_payload_that_is_never_read_in_time_costs_an_attempt_and_not_the_queue(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    store = SlowToRead(setting.troubles, setting.calls)
    monkeypatch.setattr(setting, "_connect", lambda: cast(WorkerStore, store))
    setting.ledger._link._connect = setting._connect
    ledger = setting.opened()
    monkeypatch.setattr(link_module, "reconnect_delays_s", lambda: itertools.repeat(0.0))
    setting.troubles["claim"] = [trouble]
    setting.troubles["read_claimed"] = [trouble, trouble]
    ledger.turn((), max_runs=1)
    assert store.claims == ["many", "alone", "alone", "alone"], "it is claimed by itself from then on"
    first, second = store.recorded[:2]
    assert (first.status, first.refunded, first.delay_s) == (Status.PENDING, True, 1.0)
    assert (second.refunded, (second.error or {})["kind"]) == (False, "unreadable")


def test_no_claim_of_many_runs_includes_a_suspected_run(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Earlier, after a moment without due runs, a claim of many included it again and was lost again."""
    store = SlowToRead(setting.troubles, setting.calls)
    setting.ledger._link._connect = lambda: cast(WorkerStore, store)
    ledger = setting.opened()
    monkeypatch.setattr(link_module, "reconnect_delays_s", lambda: itertools.repeat(0.0))
    setting.troubles["claim"] = [ConnectionLost("no answer")]
    setting.troubles["read_claimed"] = [ConnectionLost("no answer"), ConnectionLost("no answer")]
    due = [RUN.id, None, RUN.id, RUN.id]
    monkeypatch.setattr(store, "next_due_run", lambda _passed: due.pop(0))
    assert not ledger.turn((), max_runs=1).runs  # it was handed back, and is due in a second
    ledger.turn((), max_runs=1)
    assert store.claims == ["many", "alone", "alone", "alone"]
    assert [settlement.refunded for settlement in store.recorded] == [True, False]
    assert not ledger._claiming.goes_alone, "what was counted is not suspected any more"


@pytest.mark.parametrize("task_path", [None, "shop.tasks.add"])
def test_the_end_of_a_task_with_an_unreadable_payload_is_to_be_announced(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, task_path: str | None
) -> None:
    store = SlowToRead(setting.troubles, setting.calls)
    monkeypatch.setattr(store, "claimed", RUN._replace(task_path=task_path))
    setting.ledger._link._connect = lambda: cast(WorkerStore, store)
    ledger = setting.opened()
    setting.troubles["claim"] = [ValueRefused("too large")]
    setting.troubles["read_claimed"] = [ValueRefused("too large")]
    ledger.turn((), max_runs=1)
    (settlement,) = store.recorded
    assert (settlement.status, settlement.finish_due) == (Status.FAILED, task_path is not None)


def test_a_lock_on_the_payload_costs_no_attempt(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SlowToRead(setting.troubles, setting.calls)
    setting.ledger._link._connect = lambda: cast(WorkerStore, store)
    ledger = setting.opened()
    monkeypatch.setattr(link_module, "reconnect_delays_s", lambda: itertools.repeat(0.0))
    setting.troubles["claim"] = [ConnectionLost("gone")]
    setting.troubles["read_claimed"] = [StatementRefused("locked"), StatementRefused("locked")]
    ledger.turn((), max_runs=1)
    assert all(settlement.refunded for settlement in store.recorded)


# --- whose end the application is to be told of ---


def test_a_due_announcement_is_taken_and_cleared(setting: Setting) -> None:
    ledger = setting.opened()
    assert ledger.take_announcement() == 7
    ledger.announced(7)
    assert setting.calls == ["take_finish_due", "clear_finish_due"]


@pytest.mark.parametrize("trouble", [StatementRefused("locked"), ValueRefused("no"), ConnectionLost("gone")])
@pytest.mark.parametrize("name", ["take_finish_due", "clear_finish_due"])
def test_an_announcement_that_meets_an_error_stays_due(
    setting: Setting, name: str, trouble: Exception
) -> None:
    ledger = setting.opened()
    setting.troubles[name] = [trouble]
    if name == "take_finish_due":
        assert ledger.take_announcement() is None
    else:
        ledger.announced(7)
    assert setting.calls.count("connect") == isinstance(trouble, ConnectionLost)
    assert setting.panel.record.state is WorkerState.IDLE
    assert ledger.take_announcement() == 7


def test_a_worker_whose_lease_ended_meanwhile_announces_nothing(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = setting.opened()
    monkeypatch.setattr(ScriptedStore, "reconnected", lambda store, **_options: False, raising=False)
    setting.troubles["take_finish_due"] = [ConnectionLost("gone")]
    with pytest.raises(LeaseLost):
        ledger.take_announcement()


# --- many runs at once ---

SECOND = enqueued_at(RUN._replace(id=8, claim=1), datetime(2026, 1, 2, tzinfo=UTC))
THIRD = enqueued_at(RUN._replace(id=9, claim=1), datetime(2026, 1, 3, tzinfo=UTC))


def ended(run: ClaimedRun, result: str = "1") -> Settlement:
    return Settlement(run.id, run.claim, Status.SUCCESSFUL, result=result)


class Queue(ScriptedStore):
    """Gives the runs that a test has set, one list a claim; refuses results that say so, and notes the rest."""

    def __init__(self, troubles: Troubles, calls: list[str]) -> None:
        super().__init__(troubles, calls)
        self.claims: list[Sequence[ClaimedRun]] = []
        self.found: int | None = None
        self.asked_behind: list[dict[str, Place]] = []
        self.recorded: list[Settlement] = []
        self.held: frozenset[tuple[int, int]] = frozenset()
        self.refused: dict[int, Exception] = {}
        self.undying: dict[int, Exception] = {}
        self.failed: dict[int, str] = {}
        self.alone = RUN
        self.is_in_haste = False
        self.in_haste_at_statements: list[bool] = []

    @contextmanager
    def in_haste(self) -> Iterator[None]:
        self.is_in_haste = True
        try:
            yield
        finally:
            self.is_in_haste = False

    def held_runs(self) -> frozenset[tuple[int, int]]:
        return self.held

    def changeable_runs(self, tokens: Sequence[tuple[int, int]]) -> Mapping[tuple[int, int], ChangeableRun]:
        return {token: ChangeableRun(is_free=True, is_python=False, is_cancelled=False) for token in tokens}

    def next_due_run(self, passed: Collection[int]) -> int | None:
        return next((run.id for runs in self.claims for run in runs if run.id not in passed), None)

    def claim_run(self, run_id: int) -> ClaimedAlone:
        if run_id in self.refused:
            raise self.refused[run_id]
        (self.alone,) = [run for runs in self.claims for run in runs if run.id == run_id]
        self.claims = [[run for run in runs if run.id != run_id] for runs in self.claims]
        return ClaimedAlone(True, self.alone._replace(payload=None))

    def read_claimed(self, token: tuple[int, int]) -> ClaimedRun:
        assert token == self.alone.token
        return self.alone

    def fail_run(self, run_id: int, why: str) -> None:
        if run_id in self.undying:
            raise self.undying[run_id]
        self.failed[run_id] = why
        self.claims = [[run for run in runs if run.id != run_id] for runs in self.claims]

    def finish_and_claim(
        self,
        settlements: Sequence[Settlement],
        *,
        max_runs: int,
        places: Mapping[str, Place] | None = None,
    ) -> Claim:
        self._calls.append("finish_and_claim")
        self.in_haste_at_statements.append(self.is_in_haste)
        if self._troubles.get("finish_and_claim"):
            raise self._troubles["finish_and_claim"].pop(0)
        if any(settlement.result == "unstorable" for settlement in settlements):
            raise ValueRefused("no such value")
        self.recorded += settlements
        if not max_runs:
            return Claim(settled=len(settlements), holds_lease=True)
        self.asked_behind.append(dict(places or {}))
        runs = tuple(self.claims.pop(0)) if self.claims else ()
        found = len(runs) if self.found is None else self.found
        return Claim(settled=len(settlements), holds_lease=True, runs=runs, found=found)


@pytest.fixture
def queue(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> Queue:
    store = Queue(setting.troubles, setting.calls)
    setting.ledger._link._connect = lambda: cast(WorkerStore, store)
    setting.opened()
    monkeypatch.setattr(link_module, "reconnect_delays_s", lambda: itertools.repeat(0.0))
    return store


def test_a_claim_starts_behind_the_last_run_and_again_at_the_head_if_it_finds_too_few(
    setting: Setting, queue: Queue
) -> None:
    queue.claims = [[RUN, SECOND], [THIRD], [], [RUN]]
    assert setting.ledger.turn((), max_runs=2) == Turn((RUN, SECOND), more=True)
    assert setting.ledger.turn((), max_runs=2) == Turn((THIRD,), more=True)
    assert setting.ledger.turn((), max_runs=2) == Turn((), more=False)
    assert setting.ledger.turn((), max_runs=2) == Turn((RUN,), more=False)
    assert queue.asked_behind == [{}, {"default": SECOND.place}, {}, {}]


def test_ends_are_recorded_once_if_the_claim_is_repeated_from_the_head(
    setting: Setting, queue: Queue
) -> None:
    queue.claims = [[RUN], [], [SECOND]]
    setting.ledger.turn((), max_runs=1)
    assert setting.ledger.turn([ended(RUN)], max_runs=1).runs == (SECOND,)
    assert queue.asked_behind == [{}, {"default": RUN.place}, {}]
    assert [settlement.run_id for settlement in queue.recorded] == [RUN.id]


def test_a_batch_that_ends_at_a_run_to_be_claimed_alone_is_not_the_end_of_the_queue(
    setting: Setting, queue: Queue
) -> None:
    queue.claims, queue.found = [[RUN], [SECOND]], 2
    assert setting.ledger.turn((), max_runs=2).more
    assert setting.ledger.turn((), max_runs=2).more
    assert queue.asked_behind == [{}, {"default": RUN.place}]


class WithUnreadable(Queue):
    """Its first claim gives nothing but a run that cannot be read."""

    def finish_and_claim(
        self,
        settlements: Sequence[Settlement],
        *,
        max_runs: int,
        places: Mapping[str, Place] | None = None,
    ) -> Claim:
        claim = super().finish_and_claim(settlements, max_runs=max_runs, places=places)
        if len(self.asked_behind) > 1:
            return claim
        return Claim(settled=0, holds_lease=True, found=1, unreadable=(UnreadableRun(THIRD, "too odd"),))


def test_an_unreadable_run_that_was_claimed_alone_is_failed_with_the_next_claim(
    setting: Setting,
) -> None:
    store = WithUnreadable(setting.troubles, setting.calls)
    setting.ledger._link._connect = lambda: cast(WorkerStore, store)
    store.claims = [[], [RUN]]
    assert setting.opened().turn((), max_runs=1).runs == (RUN,)
    (failed,) = store.recorded
    assert (failed.run_id, failed.status) == (THIRD.id, Status.FAILED)


def test_one_result_that_cannot_be_stored_does_not_affect_the_rest_of_its_batch(
    setting: Setting, queue: Queue
) -> None:
    queue.claims = [[THIRD]]
    batch = [ended(RUN), ended(SECOND, "unstorable"), ended(THIRD)]
    assert setting.ledger.turn(batch, max_runs=5).runs == (THIRD,)
    status = {settlement.run_id: settlement.status for settlement in queue.recorded}
    assert status == {RUN.id: Status.SUCCESSFUL, SECOND.id: Status.FAILED, THIRD.id: Status.SUCCESSFUL}
    assert len(queue.recorded) == 3
    (failed,) = [settlement for settlement in queue.recorded if settlement.run_id == SECOND.id]
    assert failed.error is not None
    assert failed.error["kind"] == "unusable_output"


def test_after_a_lost_reply_held_runs_are_recorded_and_unknown_ones_handed_back(
    setting: Setting, queue: Queue
) -> None:
    setting.troubles["finish_and_claim"] = [ConnectionLost("gone")]
    queue.held = frozenset({SECOND.token, (77, 1), (78, 1)})
    setting.ledger.turn([ended(RUN), ended(SECOND)], max_runs=0)
    by_run = {settlement.run_id: settlement for settlement in queue.recorded}
    assert by_run.keys() == {SECOND.id, 77, 78}
    assert by_run[SECOND.id].status is Status.SUCCESSFUL
    assert by_run[77].refunded
    assert by_run[78].refunded


@pytest.mark.parametrize("trouble", [ConnectionLost("gone"), StatementRefused("locked"), ValueRefused("no")])
def test_ends_that_cannot_be_recorded_during_a_task_are_recorded_after_it(
    setting: Setting, queue: Queue, trouble: Exception
) -> None:
    queue.held = frozenset({RUN.token})
    setting.troubles["finish_and_claim"] = [trouble]
    assert not setting.ledger.record([ended(RUN)])
    assert setting.calls == ["finish_and_claim"]
    assert not queue.is_in_haste
    setting.ledger.turn([ended(RUN)], max_runs=0)
    assert [settlement.run_id for settlement in queue.recorded] == [RUN.id]


def test_runs_are_handed_back_during_a_task_with_a_short_time_limit(setting: Setting, queue: Queue) -> None:
    queue.held = frozenset({RUN.token, (77, 1)})
    setting.ledger.ask_amid_task([RUN.token])
    assert [settlement.run_id for settlement in queue.recorded] == [77]
    assert queue.in_haste_at_statements == [True]
    assert not queue.is_in_haste


def loses_connection_twice(setting: Setting, queue: Queue, *, first: str, then: str) -> None:
    """At the statement `first`; the next one cannot be made (`then` is "connect"), or refuses what it is sent."""
    setting.troubles[first] = [ConnectionLost("gone")]
    if then != "connect":
        setting.troubles[then] = [StatementRefused("locked")]
        return
    errors = [DatabaseUnavailable("here", "gone")]

    def connect() -> WorkerStore:
        if errors:
            raise errors.pop()
        return cast(WorkerStore, queue)

    setting.ledger._link._connect = connect


BAD_CONNECTIONS = pytest.mark.parametrize("then", ["connect", "end_previous_backend"])


@BAD_CONNECTIONS
def test_a_worker_that_drains_waits_for_the_database_while_it_has_something_to_record(
    setting: Setting, queue: Queue, then: str
) -> None:
    loses_connection_twice(setting, queue, first="finish_and_claim", then=then)
    queue.held = frozenset({RUN.token})
    setting.orders.drain = True
    setting.ledger.turn([ended(RUN)], max_runs=1)
    assert [settlement.status for settlement in queue.recorded] == [Status.SUCCESSFUL]


def test_an_end_whose_connection_was_lost_counts_as_something_to_record(
    setting: Setting, queue: Queue
) -> None:
    """It was lost with a claim, and then again alone. From then on it is kept as an unrecorded end."""
    setting.troubles["finish_and_claim"] = [ConnectionLost("gone"), ConnectionLost("gone")]
    connections = iter([None, DatabaseUnavailable("here", "gone"), None])

    def connect() -> WorkerStore:
        trouble = next(connections)
        if trouble is not None:
            raise trouble
        return cast(WorkerStore, queue)

    setting.ledger._link._connect = connect
    queue.held = frozenset({RUN.token})
    setting.orders.drain = True
    setting.ledger.turn([ended(RUN)], max_runs=1)
    setting.ledger.leave()
    assert [settlement.status for settlement in queue.recorded] == [Status.SUCCESSFUL]


def test_an_unrecorded_end_counts_as_something_to_record(setting: Setting, queue: Queue) -> None:
    queue.held = frozenset({RUN.token})
    setting.troubles["finish_and_claim"] = [ConnectionLost("gone"), ConnectionLost("gone")]
    setting.ledger.turn([ended(RUN)], max_runs=0)
    loses_connection_twice(setting, queue, first="finish_and_claim", then="connect")
    setting.orders.drain = True
    setting.ledger.leave()
    assert [settlement.status for settlement in queue.recorded] == [Status.SUCCESSFUL]


@BAD_CONNECTIONS
def test_a_worker_that_drains_with_nothing_to_record_does_not_wait_for_the_database(
    setting: Setting, queue: Queue, then: str
) -> None:
    loses_connection_twice(setting, queue, first="take_finish_due", then=then)
    setting.orders.drain = True
    with pytest.raises(ToldToStop):
        setting.ledger.take_announcement()


def test_ends_are_recorded_during_a_task_with_a_short_time_limit(setting: Setting, queue: Queue) -> None:
    assert setting.ledger.record([ended(RUN)])
    setting.ledger.turn([ended(SECOND)], max_runs=0)
    assert queue.in_haste_at_statements == [True, False]
