"""The runs of a lost holder: which are taken from it, which attempt was the last, what it may still write."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import psycopg
import pytest

from reproq_prefork import enqueue
from reproq_prefork.store.connection import fetch
from reproq_prefork.store.statements import statement
from tests.support.rows.stores import end_leases, lost_worker, steward_store, worker_store
from tests.support.supervisor.supervisor import run_row

Connection = psycopg.Connection[Any]


@pytest.mark.parametrize(
    ("over", "swept"),
    [(["task_runs"], False), (["reproq_workers"], False), (["task_runs", "reproq_workers"], True)],
)
def test_a_run_is_swept_once_its_own_lease_and_that_of_its_worker_are_over(
    database_url: str, connection: Connection, over: list[str], swept: bool
) -> None:
    run_id = enqueue(connection, {}).id
    with closing(steward_store(database_url)) as steward, closing(worker_store(database_url)) as worker:
        worker.finish_and_claim((), max_runs=1)
        for table in over:
            end_leases(connection, table)
        assert [run.id for run in steward.sweep_expired()] == [run_id] * swept


@pytest.mark.parametrize(("ceiling", "status"), [(None, "PENDING"), (3, "PENDING"), (2, "FAILED")])
def test_the_hosts_ceiling_of_attempts_counts_for_what_a_dead_worker_was_at(
    database_url: str, connection: Connection, ceiling: int | None, status: str
) -> None:
    run_id = enqueue(connection, {}, max_attempts=5).id
    with closing(steward_store(database_url, max_attempts_ceiling=ceiling)) as steward:
        for attempt in (1, 2):
            with closing(worker_store(database_url, f"w{attempt}")) as worker:
                (run,) = worker.finish_and_claim((), max_runs=1).runs
            assert run.attempt == attempt
            (reset,) = steward.reset_worker(lost_worker(f"w{attempt}", started=run.token))
            assert reset.charged
    assert run_row(connection, run_id)["status"] == status


@pytest.mark.parametrize(("ceiling", "status"), [(None, "PENDING"), (3, "PENDING"), (2, "FAILED")])
def test_the_hosts_ceiling_of_attempts_counts_for_what_is_swept(
    database_url: str, connection: Connection, ceiling: int | None, status: str
) -> None:
    run_id = enqueue(connection, {}, max_attempts=5).id
    with closing(steward_store(database_url, max_attempts_ceiling=ceiling)) as steward:
        for attempt in (1, 2):
            with closing(worker_store(database_url, f"w{attempt}")) as worker:
                (run,) = worker.finish_and_claim((), max_runs=1).runs
            for table in ("task_runs", "reproq_workers"):
                end_leases(connection, table)
            assert run.attempt == attempt
            assert [run.charged for run in steward.sweep_expired()] == [True]
    assert run_row(connection, run_id)["status"] == status


def test_an_atomic_task_completes_its_run_by_its_own_claim_only(
    database_url: str, connection: Connection
) -> None:
    run_id = enqueue(connection, {}).id
    with closing(steward_store(database_url)) as steward:
        claims = []
        for worker_id in ("lost", "next"):
            with closing(worker_store(database_url, worker_id)) as worker:
                claims += [run.claim for run in worker.finish_and_claim((), max_runs=1).runs]
            if worker_id == "lost":
                steward.reset_worker(lost_worker(worker_id))
    for worker_id, claim in (("lost", claims[0]), ("next", claims[0]), ("lost", claims[1])):
        assert _complete(connection, run_id, worker_id, claim) == []
    assert run_row(connection, run_id)["status"] == "RUNNING"
    assert _complete(connection, run_id, "next", claims[1]) == [run_id]
    assert run_row(connection, run_id)["status"] == "SUCCESSFUL"


def _complete(connection: Connection, run_id: int, worker_id: str, claim: int) -> list[int]:
    held = {"run_id": run_id, "worker_id": worker_id, "claim": claim}
    parameters = held | {"result": "1", "last_attempt": "{}"}
    return [row.id for row in fetch(connection, statement("complete_run"), parameters)]
