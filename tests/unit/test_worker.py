"""The worker's loop, with everything around it made up: only what cannot be timed from outside."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from reproq_prefork.errors import ExitStatus
from reproq_prefork.executors import Watch
from reproq_prefork.ledger import Attempt
from reproq_prefork.log import Log, LogFormat, LogLevel
from reproq_prefork.orders import Orders
from reproq_prefork.scoreboard import Scoreboard, WorkerPanel, WorkerRecord
from reproq_prefork.task_run import ClaimedRun, Ending, RetryPolicy, Status, Success
from reproq_prefork.wakeup import WakePipe
from reproq_prefork.worker import Worker
from tests.unit.test_settings import resolved

RUN = ClaimedRun(7, 3, "{}", "0" * 64, None, "default", attempt=1, max_attempts=3, timeout_s=None)


class ScriptedOrders(Orders):
    """Orders that a test gives."""

    def __init__(self) -> None:
        self.drain = self.quit = self.master_is_gone = False

    @property
    def fds(self) -> tuple[int, ...]:
        return ()

    def read(self) -> None:
        pass


class ScriptedLedger:
    """Gives one run; `orders` are to drain by the time that the claim is answered."""

    def __init__(self, orders: ScriptedOrders, *, drain_during_claim: bool) -> None:
        self.orders = orders
        self.drain_during_claim = drain_during_claim
        self.recorded: list[Attempt] = []
        self.has_left = False
        self._runs = [RUN]

    def open(self) -> None:
        pass

    def turn(self, ended: Attempt | None, *, max_runs: int) -> ClaimedRun | None:
        if ended is not None:
            self.recorded.append(ended)
            self.orders.drain = True
        if not max_runs or not self._runs:
            return None
        self.orders.drain = self.drain_during_claim
        return self._runs.pop()

    def leave(self) -> None:
        self.has_left = True


class CountingExecutor:
    announces = False

    def __init__(self) -> None:
        self.runs: list[ClaimedRun] = []

    def run(self, run: ClaimedRun, watch: Watch) -> Ending:
        self.runs.append(run)
        return Ending(Success("null"))

    def announce(self, run_id: int, watch: Watch) -> str | None:
        raise AssertionError("there is nobody to be told")


@pytest.fixture
def wake() -> Iterator[WakePipe]:
    pipe = WakePipe()
    yield pipe
    for fd in pipe.fds:
        os.close(fd)


def work(wake: WakePipe, *, drain_during_claim: bool) -> tuple[ScriptedLedger, CountingExecutor]:
    orders = ScriptedOrders()
    ledger: Any = ScriptedLedger(orders, drain_during_claim=drain_during_claim)
    executor = CountingExecutor()
    scoreboard = Scoreboard(slots=1, stewards=1)
    worker = Worker(
        settings=resolved().settings,
        slot=0,
        steward=0,
        scoreboard=scoreboard,
        panel=WorkerPanel(scoreboard, 0, WorkerRecord(incarnation=1)),
        orders=orders,
        wake=wake,
        ledger=ledger,
        policy=RetryPolicy(1, 1),
        executor=executor,
        log=Log(LogLevel.ERROR, LogFormat.CONSOLE),
    )
    assert worker.run() is ExitStatus.OK
    assert ledger.has_left
    return ledger, executor


def test_a_claim_that_is_answered_after_term_is_handed_back_and_never_started(wake: WakePipe) -> None:
    ledger, executor = work(wake, drain_during_claim=True)
    assert executor.runs == []
    (attempt,) = ledger.recorded
    assert attempt.token == (RUN.id, RUN.claim)
    assert (attempt.settlement.status, attempt.settlement.refunded) == (Status.PENDING, True)


def test_without_an_order_the_claim_is_run_and_recorded(wake: WakePipe) -> None:
    ledger, executor = work(wake, drain_during_claim=False)
    assert executor.runs == [RUN]
    assert [attempt.settlement.status for attempt in ledger.recorded] == [Status.SUCCESSFUL]
