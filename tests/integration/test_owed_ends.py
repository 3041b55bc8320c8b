"""Every statement that ends a run of a task without the task's own process owes the application that end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from reproq_prefork import Status, cancel, enqueue
from reproq_prefork.model.run import ClaimedRun
from reproq_prefork.model.settlement import Settlement, handed_back
from reproq_prefork.store.fetching import fetch
from reproq_prefork.store.statements import statement
from reproq_prefork.store.steward_store import StewardStore
from reproq_prefork.store.worker_store import WorkerStore
from tests.support.rows.stores import lost_worker, steward_store, worker_store
from tests.support.supervisor.supervisor import run_row

Connection = psycopg.Connection[Any]

TASK = {"v": 1, "task": "shop.send", "args": [], "kwargs": {}}
PROGRAM = {"order": 7}

Stores = tuple[WorkerStore, StewardStore]
End = Callable[[Connection, Stores, ClaimedRun], object]


@pytest.fixture
def stores(database_url: str) -> Iterator[Stores]:
    with closing(worker_store(database_url)) as worker, closing(steward_store(database_url)) as steward:
        yield worker, steward


def recorded(status: Status, **columns: Any) -> End:
    """By the worker that holds it."""

    def end(connection: Connection, stores: Stores, run: ClaimedRun) -> None:
        stores[0].finish_and_claim([Settlement(run.id, run.claim, status, **columns)], max_runs=0)

    return end


def reset(*, started: bool, refund: bool = False) -> End:
    """By the steward, once the worker is dead."""

    def end(connection: Connection, stores: Stores, run: ClaimedRun) -> None:
        stores[1].reset_worker(lost_worker(started=run.token if started else None, refund=refund))

    return end


def swept(connection: Connection, stores: Stores, run: ClaimedRun) -> None:
    """By any steward, once the lease has ended."""
    connection.execute("update task_runs set lease_expires_at = now() - interval '1 s'")
    connection.execute("update reproq_workers set lease_expires_at = now() - interval '1 s'")
    stores[1].sweep_expired()


def handed_back_by_the_steward(connection: Connection, stores: Stores, run: ClaimedRun) -> None:
    """It waits behind a slow run of its batch."""
    connection.execute(
        "update task_runs set last_attempted_at = (select last_attempted_at from task_runs where id = %s) "
        "where id < %s",
        [run.id, run.id],
    )
    (slow,) = connection.execute("select id, claims from task_runs where id < %s", [run.id]).fetchall()
    stores[1].hand_back_waiting("w", *slow)


def failed_as_nobody_can_claim_it(connection: Connection, stores: Stores, run: ClaimedRun) -> None:
    stores[0].finish_and_claim([handed_back(*run.token)], max_runs=0)
    stores[0].fail_run(run.id, "it cannot be claimed")


def failed_as_it_cannot_be_put_back(connection: Connection, stores: Stores, run: ClaimedRun) -> None:
    stores[1].fail_lost_run(*run.token, "it is refused")


def completed(connection: Connection, stores: Stores, run: ClaimedRun) -> None:
    """By an atomic task, in its own transaction."""
    held = {"run_id": run.id, "claim": run.claim, "worker_id": "w"}
    fetch(connection, statement("complete_run"), held | {"result": "1", "last_attempt": "{}"})


def cancelled_and(then: End) -> End:
    def end(connection: Connection, stores: Stores, run: ClaimedRun) -> None:
        cancel(connection, run.id)
        then(connection, stores, run)

    return end


RETRY = recorded(Status.PENDING, delay_s=0.0, error={"kind": "failed"})
ENDS_OF_A_CANCELLED_RUN: dict[str, End] = {
    "its attempt would be retried": RETRY,
    "its attempt would be retried, and its process should have announced it": recorded(
        Status.PENDING, delay_s=0.0, error={"kind": "failed"}, finish_due=True
    ),
    "it was not started, and is handed back": lambda connection, stores, run: stores[0].finish_and_claim(
        [handed_back(*run.token)], max_runs=0
    ),
    "no process could be started, and it is to wait": recorded(Status.PENDING, refunded=True, delay_s=2.0),
    "the steward hands back waiting runs": handed_back_by_the_steward,
    "its worker died during it": reset(started=True),
    "its worker died before it started": reset(started=False),
    "its worker was killed to shut down": reset(started=True, refund=True),
    "its lease ended": swept,
}
ENDS_OF_THE_LAST_ATTEMPT: dict[str, End] = {
    "its process did not announce its end": recorded(
        Status.FAILED, error={"kind": "killed"}, finish_due=True
    ),
    "its worker died during it": reset(started=True),
    "its worker was killed to shut down": reset(started=True, refund=True),
    "its lease ended": swept,
    "it cannot be claimed": failed_as_nobody_can_claim_it,
    "it cannot be reset": failed_as_it_cannot_be_put_back,
}


def claimed(connection: Connection, stores: Stores, payload: object, **options: Any) -> ClaimedRun:
    """The second of two runs that a worker has claimed together."""
    for number in (1, 2):
        enqueue(connection, payload if number == 2 else PROGRAM, **(options if number == 2 else {}))
    runs = [run for _ in (1, 2) for run in stores[0].finish_and_claim([], max_runs=1).runs]
    return runs[1]


@pytest.mark.parametrize("payload", [TASK, PROGRAM], ids=["a task", "a program"])
@pytest.mark.parametrize("name", ENDS_OF_A_CANCELLED_RUN)
def test_the_end_of_a_cancelled_run_is_due_for_announcement(
    connection: Connection, stores: Stores, name: str, payload: object
) -> None:
    run = claimed(connection, stores, payload)
    cancel(connection, run.id)
    ENDS_OF_A_CANCELLED_RUN[name](connection, stores, run)
    row = run_row(connection, run.id)
    assert (row["status"], row["leased_by"]) == ("CANCELLED", None)
    assert row["finished_at"] is not None
    assert (row["finish_due_at"] == row["finished_at"]) == (payload is TASK)
    assert stores[0].take_finish_due() == (run.id if payload is TASK else None)


@pytest.mark.parametrize("payload", [TASK, PROGRAM], ids=["a task", "a program"])
@pytest.mark.parametrize("name", ENDS_OF_THE_LAST_ATTEMPT)
def test_the_end_of_the_last_attempt_is_due_for_announcement(
    connection: Connection, stores: Stores, name: str, payload: object
) -> None:
    if payload is PROGRAM and name == "its process did not announce its end":
        pytest.skip("the worker says so of tasks alone")
    run = claimed(connection, stores, payload, max_attempts=1)
    ENDS_OF_THE_LAST_ATTEMPT[name](connection, stores, run)
    row = run_row(connection, run.id)
    assert row["status"] == "FAILED"
    assert (row["finish_due_at"] == row["finished_at"]) == (payload is TASK)


@pytest.mark.parametrize("payload", [TASK, PROGRAM], ids=["a task", "a program"])
def test_the_end_of_a_waiting_run_that_is_cancelled_is_due_for_announcement(
    connection: Connection, payload: object
) -> None:
    row = run_row(connection, cancel(connection, enqueue(connection, payload).id).id)
    assert row["status"] == "CANCELLED"
    assert (row["finish_due_at"] == row["finished_at"]) == (payload is TASK)


@pytest.mark.parametrize("status", [Status.SUCCESSFUL, Status.FAILED, Status.CANCELLED])
@pytest.mark.parametrize("is_cancelled", [False, True])
def test_an_end_that_the_task_process_has_announced_is_not_due_again(
    connection: Connection, stores: Stores, status: Status, is_cancelled: bool
) -> None:
    run = claimed(connection, stores, TASK)
    if is_cancelled:
        cancel(connection, run.id)
    recorded(status)(connection, stores, run)
    row = run_row(connection, run.id)
    assert (row["status"], row["finish_due_at"]) == (status, None)


@pytest.mark.parametrize("name", ENDS_OF_A_CANCELLED_RUN)
def test_a_run_that_will_run_again_has_no_due_announcement(
    connection: Connection, stores: Stores, name: str
) -> None:
    """The same statements, without a cancel."""
    run = claimed(connection, stores, TASK)
    ENDS_OF_A_CANCELLED_RUN[name](connection, stores, run)
    row = run_row(connection, run.id)
    assert (row["status"], row["finished_at"], row["finish_due_at"]) == ("PENDING", None, None)


@pytest.mark.parametrize(
    "end",
    [
        *ENDS_OF_THE_LAST_ATTEMPT.values(),
        recorded(Status.SUCCESSFUL, result="1"),
        completed,
        cancelled_and(RETRY),
        cancelled_and(handed_back_by_the_steward),
    ],
    ids=[*ENDS_OF_THE_LAST_ATTEMPT, "success", "atomic", "cancelled", "cancelled while it waits"],
)
def test_waiters_for_an_end_are_notified(
    database_url: str, connection: Connection, stores: Stores, end: End
) -> None:
    run = claimed(connection, stores, TASK, max_attempts=1)
    with psycopg.connect(database_url, autocommit=True) as waiter:
        waiter.execute("listen reproq_finished")
        waiter.execute(
            "insert into reproq_waiters (run_id, waiter, expires_at) values (%s, 'w', now() + interval '1 hour')",
            [run.id],
        )
        end(connection, stores, run)
        assert [each.payload for each in waiter.notifies(timeout=5, stop_after=1)] == [str(run.id)]
