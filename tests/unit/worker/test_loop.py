"""The worker's loop, with everything around it made up: only what cannot be timed from outside."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from reproq_prefork.errors import ExitStatus
from reproq_prefork.executors.contract import NoProcess, NoProgram, Watch
from reproq_prefork.model.outcome import Abandoned, AttemptReport, Cancelled, Completed, Snoozed, Success
from reproq_prefork.model.run import ClaimedRun, Status
from reproq_prefork.model.settlement import RetryPolicy, Settlement
from reproq_prefork.text.log import Log, LogFormat, LogLevel
from reproq_prefork.unix.panel import WorkerPanel
from reproq_prefork.unix.scoreboard import Scoreboard, StewardRecord, WorkerRecord, boottime_ns
from reproq_prefork.unix.wake_pipe import Sleep, WakePipe
from reproq_prefork.worker import batch, batch_size
from reproq_prefork.worker import finish_announcer as announcer_module
from reproq_prefork.worker import loop as worker_module
from reproq_prefork.worker.claiming import Turn
from reproq_prefork.worker.finish_announcer import Announcer
from reproq_prefork.worker.loop import NO_PROCESS_DELAY_S, NO_PROGRAM_DELAY_S, Worker
from tests.support.fakes.orders import ScriptedOrders
from tests.support.fakes.runs import RUN
from tests.support.fakes.settings import resolved
from tests.support.waiting import wait_until


class ScriptedLedger:
    """Gives runs, and orders to drain with the last one or once it is recorded."""

    tend_at = math.inf
    tended = 0
    is_full = False
    asks_amid_task_in_s = math.inf

    def __init__(
        self,
        orders: ScriptedOrders,
        runs: Sequence[ClaimedRun] = (RUN,),
        *,
        drain_during_claim: bool = False,
        announcements: Sequence[int] = (),
    ) -> None:
        self.orders = orders
        self.drain_during_claim = drain_during_claim
        self.recorded: list[Settlement] = []
        self.claims = 0
        self.asked_for: list[int] = []
        self.put_aside: list[list[int]] = []
        self.can_record = True
        self.told: list[int] = []
        self.taken_while_holding: list[bool] = []
        self.has_left = self.is_closed = False
        self._runs = list(runs)
        self._announcements = list(announcements)
        self._holding = False
        self.panel: WorkerPanel
        self.shown_at_claims: list[int] = []

    def open(self) -> None:
        pass

    def turn(self, ended: Sequence[Settlement], *, max_runs: int) -> Turn:
        self._holding = False
        self.recorded += ended
        if not max_runs:
            return Turn()
        self.claims += 1
        self.asked_for.append(max_runs)
        self.shown_at_claims.append(self.panel.record.run_id)
        if not self._runs:
            self.orders.drain = True
            return Turn()
        self.orders.drain = self.drain_during_claim
        self._holding = True
        claimed, self._runs = self._runs[:max_runs], self._runs[max_runs:]
        return Turn(claimed, more=len(claimed) == max_runs)

    def record(self, ended: Sequence[Settlement]) -> bool:
        self.put_aside.append([settlement.run_id for settlement in ended])
        if self.can_record:
            self.recorded += ended
        return self.can_record

    def take_announcement(self) -> int | None:
        self.taken_while_holding.append(self._holding)
        return self._announcements.pop(0) if self._announcements else None

    def announced(self, run_id: int) -> None:
        self.told.append(run_id)

    def leave(self) -> None:
        self.has_left = True

    def close(self) -> None:
        self.is_closed = True


class CountingExecutor:
    """Gives each run the next of `reports`, the last one for ever."""

    def __init__(
        self,
        reports: Sequence[AttemptReport | Exception] = (AttemptReport(Success("null")),),
        *,
        announces: bool = False,
        batches: bool = False,
        why_not: str | Exception | None = None,
    ) -> None:
        self.runs: list[ClaimedRun] = []
        self.panel: WorkerPanel  # of its worker
        self.rests = 0
        self.announces = announces
        self.batches = batches
        self._reports = list(reports)
        self._why_not = why_not

    def run(self, run: ClaimedRun, watch: Watch) -> AttemptReport:
        self.runs.append(run)
        report = self._reports.pop(0) if len(self._reports) > 1 else self._reports[0]
        if isinstance(report, Exception):
            raise report
        return report

    def rest(self) -> None:
        self.rests += 1

    def announce(self, run_id: int, watch: Watch) -> str | None:
        watch.tend()
        watch.look()
        if isinstance(self._why_not, Exception):
            raise self._why_not
        return self._why_not


@pytest.fixture
def wake() -> Iterator[WakePipe]:
    pipe = WakePipe()
    yield pipe
    for fd in pipe.fds:
        os.close(fd)


@dataclass
class Shift:
    """A worker's time at work, and what it left."""

    ledger: ScriptedLedger
    executor: CountingExecutor
    panel: WorkerPanel

    @property
    def settlements(self) -> list[Settlement]:
        return self.ledger.recorded


def work(
    wake: WakePipe,
    executor: CountingExecutor | None = None,
    *,
    runs: Sequence[ClaimedRun] = (RUN,),
    drain_during_claim: bool = False,
    announcements: Sequence[int] = (),
    flags: Mapping[str, str] | None = None,
    status: ExitStatus = ExitStatus.OK,
    policy: RetryPolicy | None = None,
    can_record: bool = True,
    orders: ScriptedOrders | None = None,
    level: LogLevel = LogLevel.ERROR,
) -> Shift:
    orders = orders or ScriptedOrders()
    ledger: Any = ScriptedLedger(
        orders, runs, drain_during_claim=drain_during_claim, announcements=announcements
    )
    executor = executor or CountingExecutor()
    ledger.can_record = can_record
    worker = a_worker(wake, ledger, executor, flags=flags, policy=policy, level=level)
    assert worker.run() is status
    assert (ledger.has_left, ledger.is_closed) == (status is ExitStatus.OK, status is ExitStatus.LEASE_LOST)
    return Shift(ledger, executor, ledger.panel)


def a_worker(
    wake: WakePipe,
    ledger: Any,
    executor: CountingExecutor,
    *,
    scoreboard: Scoreboard | None = None,
    flags: Mapping[str, str] | None = None,
    policy: RetryPolicy | None = None,
    level: LogLevel = LogLevel.ERROR,
) -> Worker:
    scoreboard = scoreboard or Scoreboard(slots=1, stewards=1)
    record = WorkerRecord(incarnation=1, lease_end_ns=boottime_ns() + 10**12)
    executor.panel = ledger.panel = WorkerPanel(scoreboard, 0, record)
    return Worker(
        settings=resolved(flags=dict(flags or {})).settings,
        slot=0,
        steward=0,
        scoreboard=scoreboard,
        panel=ledger.panel,
        orders=ledger.orders,
        wake=wake,
        ledger=ledger,
        policy=policy or RetryPolicy(1, 1),
        executor=executor,
        log=Log(level, LogFormat.CONSOLE),
    )


def test_a_claim_that_is_answered_after_term_is_handed_back_and_never_started(wake: WakePipe) -> None:
    shift = work(wake, drain_during_claim=True)
    assert shift.executor.runs == []
    (settlement,) = shift.ledger.recorded
    assert settlement.token == (RUN.id, RUN.claim)
    assert (settlement.status, settlement.refunded) == (Status.PENDING, True)


def test_without_an_order_the_claim_is_run_and_recorded(wake: WakePipe) -> None:
    shift = work(wake)
    assert shift.executor.runs == [RUN]
    assert [settlement.status for settlement in shift.settlements] == [Status.SUCCESSFUL]


# --- reports of Python tasks ---

PYTHON_RUN = RUN._replace(task_path="shop.tasks.mail")


def test_an_attempt_recorded_by_its_own_task_is_not_recorded_again(wake: WakePipe) -> None:
    shift = work(wake, CountingExecutor([AttemptReport(Completed())]), runs=[PYTHON_RUN, PYTHON_RUN])
    assert shift.executor.runs == [PYTHON_RUN] * 2
    assert shift.settlements == []
    assert shift.ledger.shown_at_claims == [0, 0, 0]
    assert shift.panel.record.tasks_done == 2


@pytest.mark.parametrize(
    ("run", "report", "announces", "due"),
    [
        (PYTHON_RUN, AttemptReport(Success("1")), True, True),
        (PYTHON_RUN, AttemptReport(Success("1"), announced=True), True, False),
        (PYTHON_RUN, AttemptReport(Success("1")), False, False),
        (PYTHON_RUN, AttemptReport(Cancelled("by somebody")), True, True),
        (RUN, AttemptReport(Success("1")), True, False),
        (PYTHON_RUN, AttemptReport(Snoozed(60)), True, True),
    ],
    ids=[
        "not announced",
        "announced by the task",
        "no announcer",
        "cancelled",
        "not a Python task",
        "cancelled before its snooze",
    ],
)
def test_an_end_that_the_task_has_not_announced_is_due(
    wake: WakePipe, run: ClaimedRun, report: AttemptReport, announces: bool, due: bool
) -> None:
    shift = work(wake, CountingExecutor([report], announces=announces), runs=[run])
    assert [settlement.finish_due for settlement in shift.settlements] == [due]


def test_a_run_of_an_ended_lease_is_not_recorded_and_the_worker_ends(wake: WakePipe) -> None:
    executor = CountingExecutor([AttemptReport(Abandoned("the lease"))])
    assert work(wake, executor, status=ExitStatus.LEASE_LOST).settlements == []


# --- when a worker is worn out ---


def test_a_run_without_a_free_process_is_tried_again_after_a_while(wake: WakePipe) -> None:
    executor = CountingExecutor([NoProcess("none"), AttemptReport(Success("1"))])
    first, second = work(wake, executor, runs=[RUN, RUN]).settlements
    assert (first.status, first.refunded, first.delay_s) == (Status.PENDING, True, NO_PROCESS_DELAY_S)
    assert second.status is Status.SUCCESSFUL


def test_without_the_program_of_tasks_nobody_is_charged_and_no_other_run_is_claimed(
    wake: WakePipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    pauses: list[float] = []

    def wait(worker: Worker) -> None:
        pauses.append(now[0])
        now[0] += 1.0

    monkeypatch.setattr(Worker, "_wait_for_work", wait)
    gone = NoProgram("run.sh cannot be started: No such file or directory")
    first, second = work(
        wake, CountingExecutor([gone, AttemptReport(Success("1"))]), runs=[RUN, RUN]
    ).settlements
    assert (first.status, first.refunded, first.delay_s) == (Status.PENDING, True, NO_PROGRAM_DELAY_S)
    assert first.error is None
    assert second.status is Status.SUCCESSFUL
    assert pauses[:5] == [1000.0, 1001.0, 1002.0, 1003.0, 1004.0]


@pytest.mark.parametrize(
    ("sizes", "runs"), [([100, 300, 600, 600], 2), ([600, 600, 600, 600], 4), ([100, 200, 300, 400], 4)]
)
def test_a_worker_that_has_grown_too_large_leaves_unless_it_started_so_large(
    wake: WakePipe, monkeypatch: pytest.MonkeyPatch, sizes: list[int], runs: int
) -> None:
    later = iter(sizes)
    monkeypatch.setattr(worker_module, "resident_kib", lambda: next(later, 400) * 1024)
    shift = work(wake, runs=[RUN] * 4, flags={"max_rss": "500M"})
    assert len(shift.executor.runs) == runs


# --- telling the application ---


def test_under_load_one_end_is_announced_from_time_to_time_but_not_while_a_run_is_held(
    wake: WakePipe,
) -> None:
    busy = work(wake, CountingExecutor(announces=True), announcements=[3, 4, 5], runs=[RUN] * 3)
    assert busy.ledger.told == [3]
    assert not any(busy.ledger.taken_while_holding)
    assert len(busy.settlements) == 3


@pytest.mark.parametrize("why_not", ["no receiver", NoProcess("none")])
def test_an_end_that_could_not_be_announced_stays_due_and_the_worker_goes_on(
    wake: WakePipe, why_not: str | Exception
) -> None:
    shift = work(wake, CountingExecutor(announces=True, why_not=why_not), announcements=[3], runs=[RUN, RUN])
    assert shift.ledger.told == []
    assert len(shift.settlements) == 2


def test_without_an_announcer_no_due_ends_are_read(wake: WakePipe) -> None:
    assert work(wake, runs=[RUN, RUN]).ledger.taken_while_holding == []


def test_an_idle_worker_announces_all_due_ends(wake: WakePipe) -> None:
    orders = ScriptedOrders()
    ledger: Any = ScriptedLedger(orders, announcements=[3, 4, 5])
    scoreboard = Scoreboard(slots=1, stewards=1)
    announcer = Announcer(
        ledger=ledger,
        executor=CountingExecutor(announces=True),
        panel=WorkerPanel(scoreboard, 0, WorkerRecord(incarnation=1)),
        orders=orders,
        log=Log(LogLevel.ERROR, LogFormat.CONSOLE),
    )
    assert announcer.is_due
    announcer.announce_due_ends(all_there_are=True)
    assert ledger.told == [3, 4, 5]
    assert not announcer.is_due


class IdleLedger(ScriptedLedger):
    """Has nothing, and gives no orders."""

    def turn(self, ended: Sequence[Settlement], *, max_runs: int) -> Turn:
        self.claims += 1
        return Turn()

    def tend(self) -> None:
        self.tended += 1
        self.tend_at += 25.0


class Clock:
    """In place of the module `time`."""

    now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


def idle_for_a_minute(
    wake: WakePipe, monkeypatch: pytest.MonkeyPatch, *, steward_works: bool, is_full: bool = False
) -> IdleLedger:
    orders, clock = ScriptedOrders(), Clock()
    ledger = IdleLedger(orders)
    ledger.tend_at = clock.now_s + 5.0
    ledger.is_full = is_full
    scoreboard = Scoreboard(slots=1, stewards=1)
    ends_at_s = clock.now_s + 60

    def wait(_sleep: Sleep, timeout_s: float) -> None:
        clock.now_s += timeout_s
        scoreboard.write_steward(0, StewardRecord(1, boottime_ns(), connected=steward_works))
        orders.drain = clock.now_s > ends_at_s

    monkeypatch.setattr(worker_module, "time", clock)
    monkeypatch.setattr(announcer_module, "time", clock)
    monkeypatch.setattr(Sleep, "wait", wait)
    a_worker(wake, ledger, CountingExecutor(announces=True), scoreboard=scoreboard).run()
    return ledger


def test_an_idle_worker_polls_once_and_then_relies_on_its_steward(
    wake: WakePipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = idle_for_a_minute(wake, monkeypatch, steward_works=True)
    assert (ledger.claims, len(ledger.taken_while_holding)) == (1, 1)


def test_an_idle_worker_retries_unrecorded_ends_when_they_are_due(
    wake: WakePipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert idle_for_a_minute(wake, monkeypatch, steward_works=True).tended == 3


def test_a_worker_with_too_many_unrecorded_ends_leaves(
    wake: WakePipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = idle_for_a_minute(wake, monkeypatch, steward_works=True, is_full=True)
    assert (ledger.has_left, ledger.claims, ledger.orders.drain) == (True, 0, False)


def test_an_idle_worker_polls_while_its_steward_has_no_connection(
    wake: WakePipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = idle_for_a_minute(wake, monkeypatch, steward_works=False)
    assert ledger.claims > 20
    assert len(ledger.taken_while_holding) > 5


# --- many at once ---

STRETCH_S = 1.0


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow this machine is, runs are short, and nobody has waited for long but where a test waits."""
    monkeypatch.setattr(batch_size, "BATCH_BUDGET_S", 600.0)
    monkeypatch.setattr(batch, "BATCH_STRETCH_S", STRETCH_S)


def several(count: int) -> list[ClaimedRun]:
    return [RUN._replace(id=number) for number in range(1, count + 1)]


@pytest.mark.usefixtures("unhurried")
def test_short_runs_are_claimed_in_growing_batches_and_each_is_run_and_recorded_once(wake: WakePipe) -> None:
    shift = work(wake, CountingExecutor(batches=True), runs=several(100))
    assert [run.id for run in shift.executor.runs] == list(range(1, 101))
    assert [settlement.run_id for settlement in shift.settlements] == list(range(1, 101))
    assert shift.ledger.asked_for[:5] == [1, 2, 4, 8, 16]
    assert shift.panel.record.tasks_done == 100
    assert shift.executor.rests == len(shift.ledger.asked_for) - 1, "after each batch"


@pytest.mark.usefixtures("unhurried")
def test_an_executor_that_starts_processes_gets_one_run_in_each_claim(wake: WakePipe) -> None:
    shift = work(wake, CountingExecutor(), runs=several(10))
    assert set(shift.ledger.asked_for) == {1}


@pytest.mark.usefixtures("unhurried")
def test_runs_that_have_only_one_attempt_are_each_claimed_alone(wake: WakePipe) -> None:
    shift = work(wake, CountingExecutor(batches=True), runs=several(10), policy=RetryPolicy(1, 1, 1))
    assert set(shift.ledger.asked_for) == {1}


@pytest.mark.usefixtures("unhurried")
def test_a_worker_that_is_to_be_replaced_claims_no_more_than_it_may_run(wake: WakePipe) -> None:
    shift = work(wake, CountingExecutor(batches=True), runs=several(100), flags={"max_tasks": "9"})
    assert len(shift.executor.runs) == 9
    assert shift.ledger.asked_for == [1, 2, 4, 2]


class Slow(CountingExecutor):
    """Takes longer than a batch may at the run `slow`, and looks in the middle of it; `during` is called then."""

    def __init__(self, slow: int, during: Callable[[], None] = lambda: None) -> None:
        super().__init__(batches=True)
        self._slow = slow
        self._during = during

    def run(self, run: ClaimedRun, watch: Watch) -> AttemptReport:
        if run.id == self._slow:
            assert watch.wait_s() <= STRETCH_S
            wait_until(
                lambda: watch.wait_s() == 0, timeout_s=5, describe="others to have waited for too long"
            )
            watch.tend()
            self._during()
        return super().run(run, watch)


@pytest.mark.usefixtures("unhurried")
def test_during_a_slow_run_the_waiting_runs_are_handed_back_and_the_ended_ones_recorded(
    wake: WakePipe,
) -> None:
    # Batches of 1, 2, 4 and 8: the eleventh is in the middle of the last one.
    shift = work(wake, Slow(11), runs=several(15))
    assert shift.ledger.put_aside == [list(range(8, 11)) + list(range(12, 16))]
    refunded = {settlement.run_id: settlement.refunded for settlement in shift.settlements}
    assert refunded == {number: number > 11 for number in range(1, 16)}
    assert len(shift.settlements) == 15
    assert 12 not in [run.id for run in shift.executor.runs]


class Doubtful(ScriptedLedger):
    """Wants to ask what is held each fiftieth of a second; `known` is what the worker says it knows."""

    def __init__(self, orders: ScriptedOrders, runs: Sequence[ClaimedRun] = (RUN,)) -> None:
        super().__init__(orders, runs)
        self.known: list[set[tuple[int, int]]] = []
        self._ask_at = 0.0

    @property
    def asks_amid_task_in_s(self) -> float:  # type: ignore[override]
        return max(0.0, self._ask_at - time.monotonic())

    def ask_amid_task(self, known: set[tuple[int, int]]) -> None:
        self.known.append(known)
        self._ask_at = time.monotonic() + 0.02


@pytest.mark.parametrize("count", [1, 3])
def test_a_worker_in_doubt_reads_its_held_runs_during_a_task(wake: WakePipe, count: int) -> None:
    class Looking(CountingExecutor):
        """At its last run it tends to what is due whenever the watch says so, for a while."""

        def run(self, run: ClaimedRun, watch: Watch) -> AttemptReport:
            if run.id == count:

                def has_asked_often() -> bool:
                    if watch.wait_s() == 0:
                        watch.tend()
                    return len(ledger.known) > 3

                wait_until(has_asked_often, 5, "the worker to ask")
            return super().run(run, watch)

    orders = ScriptedOrders()
    ledger: Any = Doubtful(orders, several(count))
    worker = a_worker(wake, ledger, Looking(batches=True))
    worker._batch_size._size = count
    assert worker.run() is ExitStatus.OK
    assert {frozenset(known) for known in ledger.known} == {frozenset(run.token for run in several(count))}


@pytest.mark.usefixtures("unhurried")
def test_runs_that_could_not_be_handed_back_during_a_task_are_handed_back_after_it(
    wake: WakePipe,
) -> None:
    shift = work(wake, Slow(11), runs=several(15), can_record=False)
    assert len(shift.ledger.put_aside) == 1
    refunded = {settlement.run_id: settlement.refunded for settlement in shift.settlements}
    assert refunded == {number: number > 11 for number in range(1, 16)}
    assert len(shift.settlements) == 15
    assert 12 not in [run.id for run in shift.executor.runs]


@pytest.mark.usefixtures("unhurried")
def test_an_order_to_drain_hands_back_the_unstarted_runs_of_a_batch(wake: WakePipe) -> None:
    class Draining(CountingExecutor):
        def run(self, run: ClaimedRun, watch: Watch) -> AttemptReport:
            if run.id == 5:
                orders.drain = True
            return super().run(run, watch)

    orders = ScriptedOrders()
    shift = work(wake, Draining(batches=True), runs=several(7), orders=orders)
    refunded = {settlement.run_id: settlement.refunded for settlement in shift.settlements}
    assert refunded == {number: number > 5 for number in range(1, 8)}


@pytest.mark.usefixtures("unhurried")
def test_runs_that_wait_behind_a_run_that_cannot_be_started_are_handed_back_too(wake: WakePipe) -> None:
    done = AttemptReport(Success("null"))
    reports: list[AttemptReport | Exception] = [done, done, done, done, NoProcess("no pid"), done]
    shift = work(wake, CountingExecutor(reports, batches=True), runs=several(7))
    refunded = {settlement.run_id: settlement.refunded for settlement in shift.settlements}
    assert refunded == {number: number > 4 for number in range(1, 8)}
    assert [settlement.run_id for settlement in shift.settlements if settlement.delay_s] == [5]


@pytest.mark.usefixtures("unhurried")
def test_ends_before_a_lost_lease_are_recorded_if_possible(wake: WakePipe) -> None:
    done = AttemptReport(Success("null"))
    reports = [done, done, done, done, AttemptReport(Abandoned("the lease"))]
    shift = work(wake, CountingExecutor(reports, batches=True), runs=several(7), status=ExitStatus.LEASE_LOST)
    assert shift.ledger.put_aside == [[4, 6, 7]]


@pytest.mark.usefixtures("unhurried")
def test_once_the_lease_has_ended_no_run_is_started_and_all_are_handed_back(wake: WakePipe) -> None:
    class Lasting(CountingExecutor):
        """Its fifth run ends with the lease, before anything has looked."""

        def run(self, run: ClaimedRun, watch: Watch) -> AttemptReport:
            if len(self.runs) == 4:
                self.panel.update(lease_end_ns=boottime_ns())
            return super().run(run, watch)

    executor = Lasting(batches=True)
    shift = work(wake, executor, runs=several(7), status=ExitStatus.LEASE_LOST)
    assert [run.id for run in executor.runs] == [1, 2, 3, 4, 5]
    assert shift.ledger.put_aside == [[4, 5, 6, 7]]
    assert [settlement.run_id for settlement in shift.settlements if settlement.refunded] == [6, 7]


@pytest.mark.usefixtures("unhurried")
def test_large_results_do_not_pile_up(wake: WakePipe) -> None:
    executor = CountingExecutor([AttemptReport(Success('"' + "x" * 2**20 + '"'))], batches=True)
    shift = work(wake, executor, runs=several(31))
    refunded = [settlement.run_id for settlement in shift.settlements if settlement.refunded]
    assert refunded[:4] == [12, 13, 14, 15]  # of the batch of eight the fourth has made it more than 4 MiB


# --- snoozing ---


@pytest.mark.usefixtures("unhurried")
def test_a_snooze_in_a_batch_is_recorded_with_it_and_logged_on_its_own_line(
    wake: WakePipe, capfd: pytest.CaptureFixture[str]
) -> None:
    reports = [
        AttemptReport(Success("1")),
        AttemptReport(Snoozed(60)),
        AttemptReport(Snoozed(0.5, "no mail")),
        AttemptReport(Success("1")),
    ]
    executor = CountingExecutor(reports, batches=True)
    shift = work(wake, executor, runs=several(4), level=LogLevel.INFO)
    assert [(each.status, each.refunded, each.delay_s) for each in shift.settlements] == [
        (Status.SUCCESSFUL, False, None),
        (Status.PENDING, True, 60),
        (Status.PENDING, True, 0.5),
        (Status.SUCCESSFUL, False, None),
    ]
    assert shift.panel.record.tasks_done == 4
    told = capfd.readouterr().err
    assert "run 2 is snoozed for 60 s" in told
    assert "run 3 is snoozed for 0.5 s" in told
    assert "no mail" in told
    assert "retry" not in told


def test_a_run_that_may_start_once_only_may_be_snoozed(wake: WakePipe) -> None:
    policy = RetryPolicy(1, 1, max_attempts_ceiling=1)
    run = RUN._replace(max_attempts=1)
    (settlement,) = work(
        wake, CountingExecutor([AttemptReport(Snoozed(3))]), runs=[run], policy=policy
    ).settlements
    assert (settlement.status, settlement.delay_s, settlement.error) == (Status.PENDING, 3, None)
