"""Who tells the application of an end: one worker at a time, until it has told."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import psycopg
import pytest

from reproq_prefork import cancel, enqueue
from reproq_prefork.store.statements import statement
from reproq_prefork.store.worker_store import WorkerStore
from tests.support.rows.stores import steward_store, worker_store
from tests.support.supervisor.supervisor import restoring, run_row

Connection = psycopg.Connection[Any]

MAX_BUFFERS = 60
TASK = {"v": 1, "task": "shop.send", "args": [], "kwargs": {}}


def ended(connection: Connection, queue_name: str = "default") -> int:
    """A run whose end nobody has told the application of."""
    return cancel(connection, enqueue(connection, TASK, queue_name=queue_name).id).id


def test_a_due_end_is_taken_by_one_worker_and_cleared_once_announced(
    database_url: str, connection: Connection, worker: WorkerStore
) -> None:
    run_id = ended(connection)
    with (
        closing(worker_store(database_url, "other")) as other,
        closing(steward_store(database_url)) as steward,
    ):
        assert steward.look((), announces=True).is_finish_due
        assert not steward.look((), announces=False).is_finish_due
        assert worker.take_finish_due() == run_id
        assert not steward.look((), announces=True).is_finish_due
        assert other.take_finish_due() is None
    row = connection.execute("select finish_due_at - now() < '60 s', finish_due_at > now() from task_runs")
    assert row.fetchone() == (True, True)
    worker.clear_finish_due(run_id)
    assert run_row(connection, run_id)["finish_due_at"] is None
    worker.clear_finish_due(run_id)


def test_an_end_that_was_taken_but_not_announced_is_due_again_a_minute_later(
    connection: Connection, worker: WorkerStore
) -> None:
    run_id = ended(connection)
    assert worker.take_finish_due() == run_id
    connection.execute("update task_runs set finish_due_at = finish_due_at - interval '1 minute'")
    assert worker.take_finish_due() == run_id


def test_the_end_that_has_been_due_longest_is_taken_first(
    connection: Connection, worker: WorkerStore
) -> None:
    runs = [ended(connection) for _ in range(3)]
    assert [worker.take_finish_due() for _ in range(4)] == [*runs, None]


def test_a_locked_end_is_skipped(database_url: str, connection: Connection, worker: WorkerStore) -> None:
    first, second = ended(connection), ended(connection)
    with psycopg.connect(database_url) as other:
        other.execute("select from task_runs where id = %s for update", [first])
        assert worker.take_finish_due() == second
        assert worker.take_finish_due() is None


def test_the_ends_of_other_queues_are_left_to_their_workers(
    database_url: str, connection: Connection, worker: WorkerStore
) -> None:
    ended(connection, "mail")
    with closing(steward_store(database_url)) as steward:
        assert not steward.look((), announces=True).is_finish_due
    assert worker.take_finish_due() is None
    with closing(worker_store(database_url, "postman", queues=("news", "mail"))) as postman:
        assert postman.take_finish_due() is not None


@pytest.mark.parametrize(
    "age",
    [
        "update task_runs set finish_due_at = now() - interval '8 days'",
        "update task_runs set finished_at = now() - interval '8 days'",
    ],
)
def test_an_end_of_a_week_ago_is_not_announced(connection: Connection, worker: WorkerStore, age: str) -> None:
    ended(connection)
    connection.execute(age)
    assert worker.take_finish_due() is None


def test_looking_for_a_due_end_reads_almost_nothing_of_a_large_table(connection: Connection) -> None:
    with restoring(connection):
        connection.execute(
            "insert into task_runs (payload, spec_hash, status, finished_at, finish_due_at) "
            "select '{}', repeat('a', 64), 'FAILED', now() - interval '9 days', "
            "case when n > 19000 then now() - interval '9 days' end from generate_series(1, 20000) as n"
        )
    connection.execute("vacuum analyze task_runs")
    ended(connection)
    look = {"queues": "default", "announces": True, "worker_ids": "[]"}
    assert buffers_read(connection, "look", look) < MAX_BUFFERS
    assert (
        buffers_read(connection, "take_finish_due", {"queues": "default", "again_seconds": 60.0})
        < MAX_BUFFERS
    )


def buffers_read(connection: Connection, name: str, parameters: dict[str, Any]) -> int:
    explain = f"explain (analyze, buffers, format json) {statement(name)}"
    row = connection.execute(explain, parameters).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
