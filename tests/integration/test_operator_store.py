"""What a person asks: counts that are exact or say that they are not, and pruning that takes only what it may."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from reproq_prefork import Status, enqueue, requeue
from reproq_prefork.store import operator_store
from reproq_prefork.store.operator_store import OperatorStore
from tests.support.supervisor.supervisor import restoring

Connection = psycopg.Connection[Any]
DAY_S = 86_400.0


@pytest.fixture
def store(database_url: str) -> Iterator[OperatorStore]:
    with closing(OperatorStore(database_url)) as store:
        yield store


def fill(connection: Connection, **runs: tuple[int, str]) -> None:
    """Runs of a queue each: how many, and what is set of them."""
    with connection.transaction():
        connection.execute("set local session_replication_role = replica")  # no triggers
        for queue, (number, columns) in runs.items():
            connection.execute(
                f"insert into task_runs (payload, spec_hash, queue_name) "  # noqa: S608 (from this file)
                f"select '1', repeat('ab', 32), '{queue}' from generate_series(1, {number})".encode()
            )
            if columns:
                connection.execute(
                    f"update task_runs set {columns} where queue_name = '{queue}'".encode()  # noqa: S608
                )


def finished(status: str, days_ago: float) -> str:
    return (
        f"status = '{status}', finished_at = now() - interval '{days_ago} days', "
        f"enqueued_at = now() - interval '{days_ago} days'"
    )


def left(connection: Connection) -> dict[str, int]:
    return dict(
        connection.execute("select queue_name, count(*) from task_runs group by 1 order by 1").fetchall()
    )


# --- counts ---


def test_runs_of_a_queue_are_counted_by_status_and_by_due_time(
    connection: Connection, store: OperatorStore
) -> None:
    fill(
        connection,
        busy=(3, "status = 'RUNNING', leased_by = 'w', lease_expires_at = now()"),
        done=(4, "status = 'SUCCESSFUL'"),
        due=(5, "enqueued_at = now() - interval '1 hour'"),
        later=(6, "run_after = now() + interval '1 hour'"),
    )
    counts = {
        queue.name: {status: (count.runs, count.due, count.exact) for status, count in queue.counts.items()}
        for queue in store.queues()
    }
    assert counts == {
        "busy": {Status.RUNNING: (3, 0, True)},
        "done": {Status.SUCCESSFUL: (4, 0, True)},
        "due": {Status.PENDING: (5, 5, True)},
        "later": {Status.PENDING: (6, 0, True)},
    }
    waited = {queue.name: queue.oldest_due_s for queue in store.queues()}
    assert waited["busy"] is waited["done"] is waited["later"] is None
    assert waited["due"] is not None
    assert 3600 <= waited["due"] < 3700


def test_the_oldest_due_run_is_found_below_higher_priorities(
    connection: Connection, store: OperatorStore
) -> None:
    fill(
        connection,
        a=(1, "priority = 10, run_after = now() + interval '1 day'"),
        b=(1, "priority = 10, run_after = now() - interval '1 minute'"),
    )
    connection.execute(
        "insert into task_runs (payload, spec_hash, queue_name, priority, run_after) "
        "select '1', repeat('ab', 32), queue, -5, now() - interval '1 hour' from unnest('{a,b}'::text[]) queue"
    )
    assert [round((queue.oldest_due_s or 0) / 60) for queue in store.queues()] == [60, 60]


def test_many_finished_runs_are_estimated(
    connection: Connection, store: OperatorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(
        connection,
        done=(60_000, "status = 'SUCCESSFUL'"),
        waits=(70, ""),
        busy=(3, "status = 'RUNNING', leased_by = 'w', lease_expires_at = now()"),
    )
    connection.execute("vacuum analyze task_runs")
    monkeypatch.setattr(operator_store, "MAX_RUNS_COUNTED", 1_000)
    monkeypatch.setattr(operator_store, "SAMPLED_RUNS", 20_000)
    queues = {queue.name: queue for queue in store.queues()}
    done = queues["done"].count(Status.SUCCESSFUL)
    assert not done.exact
    assert 30_000 < done.runs < 120_000
    assert queues["waits"].count(Status.PENDING).runs == 70
    assert queues["waits"].count(Status.PENDING).exact
    assert queues["busy"].count(Status.RUNNING).exact


def test_very_many_waiting_runs_are_estimated_too(
    connection: Connection, store: OperatorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(connection, waits=(60_000, ""))
    connection.execute("vacuum analyze task_runs")
    monkeypatch.setattr(operator_store, "MAX_RUNS_COUNTED", 1_000)
    monkeypatch.setattr(operator_store, "SAMPLED_RUNS", 20_000)
    (queue,) = store.queues()
    pending = queue.count(Status.PENDING)
    assert not pending.exact
    assert 30_000 < pending.runs < 120_000
    assert pending.due == pending.runs


def test_a_table_that_was_never_analysed_is_not_taken_for_an_empty_one(
    connection: Connection, store: OperatorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection.execute("alter table task_runs set (autovacuum_enabled = off)")
    fill(connection, done=(20_000, "status = 'SUCCESSFUL'"))
    monkeypatch.setattr(operator_store, "MAX_RUNS_COUNTED", 1_000)
    (queue,) = store.queues()
    assert not queue.count(Status.SUCCESSFUL).exact


def test_a_worker_is_shown_with_the_runs_it_holds_and_a_run_with_a_missing_worker_too(
    connection: Connection, store: OperatorStore
) -> None:
    for name, lease in (("idle", "30 seconds"), ("busy", "-5 seconds")):
        connection.execute(
            "insert into reproq_workers (id, host, host_identity, pid, pid_started, master_pid, "
            "master_started, version, queues, lease_expires_at) "
            "values (%s, 'h', 'h', 7, 1, 1, 1, '0', '{a,b}', now() + %s::interval)",
            (name, lease),
        )
    with restoring(connection):
        for holder in ("busy", "busy", "gone"):
            connection.execute(
                "insert into task_runs (payload, spec_hash, status, leased_by, lease_expires_at, attempts) "
                """values ('{"v": 1, "task": "a.b"}', repeat('ab', 32), 'RUNNING', %s, now(), 1)""",
                (holder,),
            )
    workers = {worker.id: worker for worker in store.workers()}
    assert {name: len(worker.runs) for name, worker in workers.items()} == {"idle": 0, "busy": 2, "gone": 1}
    idle, busy, gone = (workers[name] for name in ("idle", "busy", "gone"))
    assert (idle.host, idle.pid, idle.queues) == ("h", 7, ("a", "b"))
    assert idle.lease_s is not None
    assert 25 < idle.lease_s <= 30
    assert busy.lease_s is not None
    assert busy.lease_s < 0
    assert (gone.host, gone.lease_s) == (None, None)
    assert busy.runs[0].task_path == "a.b"


def test_the_replays_of_a_run_are_those_that_copied_it(connection: Connection, store: OperatorStore) -> None:
    run, other = enqueue(connection, 1), enqueue(connection, 1)
    first, second = (requeue(connection, run_id=run.id) for _ in range(2))
    requeue(connection, run_id=other.id)
    requeue(connection, run_id=first.id)
    assert store.replays_of(run.id, run.spec_hash) == (
        (first.id, Status.PENDING),
        (second.id, Status.PENDING),
    )


# --- prune ---


def test_only_what_finished_long_ago_is_deleted(connection: Connection, store: OperatorStore) -> None:
    long_ago = "enqueued_at = now() - interval '99 days'"
    fill(
        connection,
        cancelled_old=(2, finished("CANCELLED", 31)),
        cancelled_recent=(2, finished("CANCELLED", 29)),
        failed_old=(2, finished("FAILED", 31)),
        failed_recent=(2, finished("FAILED", 29)),
        pending=(2, long_ago),
        running=(2, f"{long_ago}, status = 'RUNNING', leased_by = 'w', lease_expires_at = now()"),
        successful_by_hand=(2, f"{long_ago}, status = 'SUCCESSFUL'"),  # without finished_at
        successful_late=(2, f"{long_ago}, status = 'SUCCESSFUL', finished_at = now() - interval '6 days'"),
        successful_old=(2, finished("SUCCESSFUL", 8)),
        successful_recent=(2, finished("SUCCESSFUL", 6)),
    )
    deleted = store.prune(older_than_s=7 * DAY_S, failed_older_than_s=30 * DAY_S)
    assert sum(deleted) == 8
    assert set(left(connection)) == {
        "cancelled_recent",
        "failed_recent",
        "pending",
        "running",
        "successful_late",
        "successful_recent",
    }


def test_pruning_goes_in_batches_that_each_commit(connection: Connection, store: OperatorStore) -> None:
    fill(connection, old=(2_500, finished("SUCCESSFUL", 8)))
    batches = store.prune(older_than_s=DAY_S, failed_older_than_s=DAY_S)
    remaining = 2_500
    for deleted in batches:
        remaining -= deleted
        assert left(connection).get("old", 0) == remaining
    assert remaining == 0


def test_pruning_finds_old_runs_beyond_many_that_stay(connection: Connection, store: OperatorStore) -> None:
    fill(
        connection,
        a_stays=(2_500, "enqueued_at = now() - interval '99 days'"),
        b_old=(10, finished("SUCCESSFUL", 8)),
    )
    assert sum(store.prune(older_than_s=DAY_S, failed_older_than_s=DAY_S)) == 10


def test_a_dry_run_counts_what_would_be_deleted_and_deletes_nothing(
    connection: Connection, store: OperatorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(
        connection,
        a_old=(2_500, finished("SUCCESSFUL", 8)),
        b_stays=(300, finished("FAILED", 8)),
        c_old=(10, finished("FAILED", 31)),
    )
    monkeypatch.setattr(operator_store, "COUNT_BATCH", 200)
    assert sum(store.count_prunable(older_than_s=7 * DAY_S, failed_older_than_s=30 * DAY_S)) == 2_510
    assert left(connection) == {"a_old": 2_500, "b_stays": 300, "c_old": 10}


def test_pruning_stops_where_all_runs_are_younger(connection: Connection, store: OperatorStore) -> None:
    fill(connection, young=(5_500, "status = 'SUCCESSFUL', finished_at = now()"))
    assert list(store.prune(older_than_s=DAY_S, failed_older_than_s=DAY_S)) == [0]


def test_pruning_skips_a_locked_run(connection: Connection, store: OperatorStore, database_url: str) -> None:
    fill(connection, old=(3, finished("SUCCESSFUL", 8)))
    with psycopg.connect(database_url) as other:
        other.execute("select from task_runs order by id limit 1 for update")
        assert sum(store.prune(older_than_s=DAY_S, failed_older_than_s=DAY_S)) == 2
    assert left(connection) == {"old": 1}
