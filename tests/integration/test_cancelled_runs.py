"""What a cancel writes, and what becomes of a cancelled run whoever ends it: the database's side alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from reproq_prefork import Status, cancel, enqueue, get_run, requeue
from reproq_prefork.errors import RunNotFound
from reproq_prefork.model.new_run import InvalidRun
from reproq_prefork.model.run import ClaimedRun
from reproq_prefork.model.settlement import Settlement
from reproq_prefork.store.statements import statement
from reproq_prefork.store.steward_store import RunToCancel, StewardStore
from reproq_prefork.store.worker_store import WorkerStore
from tests.support.rows.stores import lost_worker, worker_store
from tests.support.supervisor.supervisor import restoring, run_row
from tests.support.waiting import wait_until

Connection = psycopg.Connection[Any]

TASK = {"v": 1, "task": "shop.send", "args": [], "kwargs": {}}


def claimed(worker: WorkerStore) -> ClaimedRun:
    (run,) = worker.finish_and_claim([], max_runs=1).runs
    return run


def wait_for(connection: Connection, run_id: int) -> None:
    connection.execute(
        "insert into reproq_waiters (run_id, waiter, expires_at) values (%s, 'w', now() + interval '1 hour')",
        [run_id],
    )


class Listener:
    """Hears of cancels and of ends that somebody waits for."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        for channel in ("reproq_cancel", "reproq_finished", "all_told"):
            connection.execute(f"listen {channel}")

    def heard(self) -> list[tuple[str, str]]:
        """All that was committed before this call; a message of its own comes after it."""
        self._connection.execute("notify all_told")
        messages = []
        for message in self._connection.notifies(timeout=10):
            if message.channel == "all_told":
                break
            messages.append((message.channel, message.payload))
        return messages


@pytest.fixture
def listener(database_url: str) -> Iterator[Listener]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield Listener(connection)


def waits_for_a_lock(connection: Connection) -> bool:
    query = "select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    return connection.execute(query).fetchone() is not None


# --- cancel ---


def test_a_run_that_waits_is_cancelled_at_once(connection: Connection, listener: Listener) -> None:
    run = enqueue(connection, TASK, unique_key="k")
    wait_for(connection, run.id)
    cancelled = cancel(connection, run.id)
    assert cancelled.status is Status.CANCELLED
    assert cancelled.is_finished
    assert cancelled == get_run(connection, run.id)
    assert cancelled.finished_at == cancelled.cancel_requested_at == cancelled.finish_due_at is not None
    (entry,) = cancelled.errors
    assert (entry["kind"], entry["message"]) == ("cancelled", "the task was cancelled")
    assert cancelled.attempts == 0
    assert enqueue(connection, TASK, unique_key="k").created, "its key is free again"
    assert listener.heard() == [("reproq_finished", str(run.id))]


def test_a_cancel_without_a_waiter_is_not_notified(connection: Connection, listener: Listener) -> None:
    cancel(connection, enqueue(connection, TASK).id)
    assert listener.heard() == []


def test_only_ends_of_python_tasks_are_announced_to_the_application(connection: Connection) -> None:
    assert cancel(connection, enqueue(connection, {"order": 7}).id).finish_due_at is None


def test_a_running_run_is_marked_and_its_worker_is_named(
    connection: Connection, listener: Listener, worker: WorkerStore
) -> None:
    run_id = enqueue(connection, TASK).id
    claimed(worker)
    first = cancel(connection, run_id)
    assert (first.status, first.leased_by, first.errors) == (Status.RUNNING, "w", ())
    assert first.cancel_requested_at is not None
    assert (first.finished_at, first.finish_due_at) == (None, None)
    second = cancel(connection, run_id)
    assert second.cancel_requested_at == first.cancel_requested_at
    assert listener.heard() == [("reproq_cancel", "w")] * 2, "the first may not have been heard"


@pytest.mark.parametrize("status", ["SUCCESSFUL", "FAILED", "CANCELLED"])
def test_a_run_that_has_finished_stays_as_it_is(connection: Connection, status: str) -> None:
    run_id = enqueue(connection, TASK).id
    connection.execute(
        "update task_runs set status = %s, finished_at = now() where id = %s", [status, run_id]
    )
    before = get_run(connection, run_id)
    assert cancel(connection, run_id) == before
    assert get_run(connection, run_id) == before


def test_a_missing_run_cannot_be_cancelled(connection: Connection) -> None:
    with pytest.raises(RunNotFound, match="12345"):
        cancel(connection, 12345)
    with pytest.raises(InvalidRun):
        cancel(connection, "1")  # type: ignore[arg-type]


def test_the_caller_commits_or_rolls_back_a_cancel(database_url: str, connection: Connection) -> None:
    run_id = enqueue(connection, TASK).id
    with psycopg.connect(database_url) as caller:
        assert cancel(caller, run_id).status is Status.CANCELLED
        assert get_run(connection, run_id).status is Status.PENDING
        caller.rollback()
    assert get_run(connection, run_id).status is Status.PENDING


def test_a_copy_of_a_cancelled_run_is_not_cancelled(connection: Connection) -> None:
    run_id = enqueue(connection, TASK).id
    cancel(connection, run_id)
    again = requeue(connection, run_id=run_id)
    assert (again.status, again.cancel_requested_at) == (Status.PENDING, None)


def test_a_cancel_that_waits_for_a_claim_cancels_the_run_as_claimed(
    database_url: str, connection: Connection, listener: Listener
) -> None:
    """It must not cancel as waiting a run that a worker has just claimed."""
    run_id = enqueue(connection, TASK).id
    answers: list[Status] = []

    def cancel_meanwhile() -> None:
        with psycopg.connect(database_url, autocommit=True) as caller:
            answers.append(cancel(caller, run_id).status)

    with psycopg.connect(database_url) as claimer:
        claimer.execute(
            "update task_runs set status = 'RUNNING', leased_by = 'w', lease_expires_at = now() where id = %s",
            [run_id],
        )
        thread = threading.Thread(target=cancel_meanwhile)
        thread.start()
        wait_until(lambda: waits_for_a_lock(connection), 10, "the cancel to wait for the claim")
        claimer.commit()
    thread.join(10)
    assert answers == [Status.RUNNING]
    assert listener.heard() == [("reproq_cancel", "w")]


# --- what the holder, the steward and the sweep make of it ---


@pytest.mark.parametrize("delay_s", [None, 60.0])
def test_a_cancelled_run_is_not_retried_or_handed_back(
    connection: Connection, worker: WorkerStore, delay_s: float | None
) -> None:
    run_id = enqueue(connection, TASK).id
    run = claimed(worker)
    cancel(connection, run_id)
    worker.finish_and_claim([Settlement(run.id, run.claim, Status.PENDING, delay_s=delay_s)], max_runs=0)
    assert get_run(connection, run_id).status is Status.CANCELLED


@pytest.mark.parametrize("cancelled", [True, False])
def test_a_cancelled_run_that_ends_instead_of_a_retry_is_still_announced(
    connection: Connection, worker: WorkerStore, cancelled: bool
) -> None:
    """The task's process announced nothing, because the failed attempt was not the last one."""
    run_id = enqueue(connection, TASK).id
    run = claimed(worker)
    if cancelled:
        cancel(connection, run_id)
    error = {"kind": "failed", "message": "no"}
    retry = Settlement(run.id, run.claim, Status.PENDING, error=error, delay_s=60.0, finish_due=True)
    worker.finish_and_claim([retry], max_runs=0)
    ended = get_run(connection, run_id)
    assert ended.status is (Status.CANCELLED if cancelled else Status.PENDING)
    assert (ended.finish_due_at is not None) is cancelled
    assert [entry["kind"] for entry in ended.errors] == ["failed"]
    assert worker.take_finish_due() == (run_id if cancelled else None)


def test_the_steward_finds_the_runs_that_its_workers_must_end(
    database_url: str, connection: Connection, worker: WorkerStore, steward: StewardStore
) -> None:
    with closing(worker_store(database_url, "other")) as other:
        mine, anothers, untouched = (enqueue(connection, TASK).id for _ in range(3))
        held = {store: claimed(store) for store in (worker, other)}
        assert [run.id for run in held.values()] == [mine, anothers]
        for run_id in (mine, anothers):
            cancel(connection, run_id)
        seen = steward.look(["w"], announces=False)
        assert seen.runs_are_due
        assert seen.to_cancel == (RunToCancel("w", mine, 1),)
        assert len(steward.look(["w", "other"], announces=False).to_cancel) == 2
        assert steward.look([], announces=False).to_cancel == ()
        assert get_run(connection, untouched).status is Status.PENDING


def test_the_steward_distinguishes_new_runs_from_cancels(
    connection: Connection, worker: WorkerStore, steward: StewardStore
) -> None:
    steward.listen()
    steward.await_new_runs()
    run_id = enqueue(connection, TASK).id
    claimed(worker)
    cancel(connection, run_id)
    queues: set[str] = set()
    workers: set[str] = set()

    def has_heard_both() -> bool:
        news = steward.news()
        queues.update(news.queues)
        workers.update(news.cancelled_at)
        return bool(queues and workers)

    wait_until(has_heard_both, 10, "both to be heard of")
    assert (queues, workers) == ({"default"}, {"w"})


@pytest.mark.parametrize(
    ("max_attempts", "started", "refund", "kind", "attempts"),
    [
        (3, True, False, "worker_lost", 1),
        (1, True, False, "worker_lost", 1),
        (1, True, True, "worker_lost", 1),
        (3, True, True, "cancelled", 0),
        (3, False, False, "cancelled", 0),
    ],
)
def test_a_cancelled_run_of_a_dead_worker_is_cancelled(
    connection: Connection,
    listener: Listener,
    worker: WorkerStore,
    steward: StewardStore,
    max_attempts: int,
    started: bool,
    refund: bool,
    kind: str,
    attempts: int,
) -> None:
    run_id = enqueue(connection, TASK, max_attempts=max_attempts).id
    run = claimed(worker)
    cancel(connection, run_id)
    wait_for(connection, run_id)
    lost = lost_worker(started=(run.id, run.claim) if started else None, refund=refund)
    (reset,) = steward.reset_worker(lost)
    assert reset.status is Status.CANCELLED
    ended = get_run(connection, run_id)
    assert (ended.status, ended.attempts, len(ended.worker_ids)) == (Status.CANCELLED, attempts, attempts)
    assert [entry["kind"] for entry in ended.errors] == [kind]
    assert ended.finished_at == ended.finish_due_at is not None
    assert listener.heard() == [("reproq_cancel", "w"), ("reproq_finished", str(run_id))]


@pytest.mark.parametrize("max_attempts", [1, 3])
def test_a_run_of_a_dead_worker_that_was_not_cancelled_is_reset_as_usual(
    connection: Connection,
    listener: Listener,
    worker: WorkerStore,
    steward: StewardStore,
    max_attempts: int,
) -> None:
    run_id = enqueue(connection, TASK, max_attempts=max_attempts).id
    run = claimed(worker)
    wait_for(connection, run_id)
    steward.reset_worker(lost_worker(started=(run.id, run.claim)))
    row = run_row(connection, run_id)
    final = max_attempts == 1
    assert row["status"] == ("FAILED" if final else "PENDING")
    assert (row["finished_at"] is not None, row["finish_due_at"] is not None) == (final, final)
    assert listener.heard() == ([("reproq_finished", str(run_id))] if final else [])


@pytest.mark.parametrize(
    ("cancelled", "max_attempts", "status"),
    [(True, 3, "CANCELLED"), (True, 1, "CANCELLED"), (False, 1, "FAILED"), (False, 3, "PENDING")],
)
def test_the_sweep_ends_a_cancelled_run(
    connection: Connection,
    listener: Listener,
    worker: WorkerStore,
    steward: StewardStore,
    cancelled: bool,
    max_attempts: int,
    status: str,
) -> None:
    run_id = enqueue(connection, TASK, max_attempts=max_attempts).id
    claimed(worker)
    if cancelled:
        cancel(connection, run_id)
        listener.heard()
    wait_for(connection, run_id)
    connection.execute("update task_runs set lease_expires_at = now() - interval '1 s'")
    connection.execute("delete from reproq_workers")
    (reset,) = steward.sweep_expired()
    row = run_row(connection, run_id)
    assert row["status"] == reset.status == status
    assert [entry["kind"] for entry in row["errors"]] == ["lease_expired"]
    final = status != "PENDING"
    assert (row["finished_at"] is not None, row["finish_due_at"] is not None) == (final, final)
    assert listener.heard() == ([("reproq_finished", str(run_id))] if final else [])


def test_looking_for_cancelled_runs_reads_almost_nothing_of_a_large_table(connection: Connection) -> None:
    with restoring(connection):
        connection.execute(
            "insert into task_runs (payload, spec_hash, status, leased_by, lease_expires_at, cancel_requested_at) "
            "select '{}', repeat('a', 64), case when n % 4 = 0 then 'RUNNING' else 'CANCELLED' end, "
            "case when n % 4 = 0 then 'w' || n % 100 end, case when n % 4 = 0 then now() end, "
            "case when n % 4 > 0 or n = 4 then now() end from generate_series(1, 20000) as n"
        )
    connection.execute("vacuum analyze task_runs")
    explain = f"explain (analyze, buffers, format json) {statement('look')}"
    look = {"queues": "default", "announces": False, "worker_ids": '["w0", "w4", "w8"]'}
    row = connection.execute(explain, look).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    assert plan["Actual Rows"] == 1
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 20


def test_expired_waiters_are_deleted(connection: Connection, steward: StewardStore) -> None:
    connection.execute(
        "insert into reproq_waiters (run_id, waiter, expires_at) values "
        "(1, 'gone', now() - interval '1 s'), (1, 'there', now() + interval '1 h')"
    )
    assert steward.forget_waiters() == 1
    assert connection.execute("select waiter from reproq_waiters").fetchall() == [("there",)]
