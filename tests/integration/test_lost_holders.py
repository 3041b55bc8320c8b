"""The runs of a lost holder: which are taken from it, which attempt was the last, what it may still write."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import psycopg
import pytest

from reproq_prefork import enqueue
from reproq_prefork.model.run import Status
from reproq_prefork.model.settlement import Settlement
from reproq_prefork.store.fetching import fetch
from reproq_prefork.store.statements import statement
from tests.support.rows.stores import end_leases, lost_worker, steward_store, worker_store
from tests.support.supervisor.supervisor import run_row

Connection = psycopg.Connection[Any]


@pytest.mark.parametrize(
    ("over", "swept"),
    [(["task_runs"], False), (["reproq_workers"], False), (["task_runs", "reproq_workers"], True)],
)
def test_a_run_is_swept_once_its_lease_and_the_lease_of_its_worker_have_ended(
    database_url: str, connection: Connection, over: list[str], swept: bool
) -> None:
    run_id = enqueue(connection, {}).id
    with closing(steward_store(database_url)) as steward, closing(worker_store(database_url)) as worker:
        worker.finish_and_claim((), max_runs=1)
        for table in over:
            end_leases(connection, table)
        assert [run.id for run in steward.sweep_expired()] == [run_id] * swept


@pytest.mark.parametrize(
    ("lease", "swept"), [("1 day", False), ("3 days", True), ("90 years", True), (None, True)]
)
def test_an_impossible_lease_counts_as_ended(
    database_url: str, connection: Connection, lease: str | None, swept: bool
) -> None:
    """Otherwise its run would be RUNNING for ever after its worker is gone."""
    run_id = enqueue(connection, {}).id
    with closing(steward_store(database_url)) as steward, closing(worker_store(database_url)) as worker:
        worker.finish_and_claim((), max_runs=1)
        # As in a table whose CHECKs somebody has dropped.
        connection.execute("alter table task_runs drop constraint task_runs_running_has_a_holder")
        connection.execute("update task_runs set lease_expires_at = now() + %s::interval", [lease])
        assert steward.sweep_expired() == ()
        end_leases(connection, "reproq_workers")
        assert list(steward.expired_runs()) == [(run_id, 1)] * swept
        assert [run.id for run in steward.sweep_expired()] == [run_id] * swept


@pytest.mark.parametrize(("ceiling", "status"), [(None, "PENDING"), (3, "PENDING"), (2, "FAILED")])
def test_the_attempts_limit_of_a_host_holds_for_the_run_of_a_dead_worker(
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
def test_the_attempts_limit_of_a_host_holds_for_swept_runs(
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


@pytest.mark.parametrize(
    ("ceiling", "end"), [(None, ("PENDING", 0)), (2, ("PENDING", 0)), (1, ("FAILED", 1))]
)
def test_a_run_that_may_start_once_on_this_host_is_not_handed_back_by_a_shutdown(
    database_url: str, connection: Connection, ceiling: int | None, end: tuple[str, int]
) -> None:
    run_id = enqueue(connection, {}, max_attempts=5).id
    with (
        closing(steward_store(database_url, max_attempts_ceiling=ceiling)) as steward,
        closing(worker_store(database_url)) as worker,
    ):
        (run,) = worker.finish_and_claim((), max_runs=1).runs
        steward.reset_worker(lost_worker(started=run.token, refund=True))
    row = run_row(connection, run_id)
    assert (row["status"], row["attempts"]) == end


def test_an_ended_lease_stays_ended(database_url: str, connection: Connection) -> None:
    run_id = enqueue(connection, {}).id
    with closing(steward_store(database_url)) as steward, closing(worker_store(database_url)) as worker:
        assert worker.reconnected()
        assert steward.renew_leases(["w"], lease_s=60) == {"w"}
        end_leases(connection, "reproq_workers")
        assert steward.renew_leases(["w"], lease_s=60) == frozenset()
        assert not worker.reconnected()
        claim = worker.finish_and_claim((), max_runs=1)
        assert (claim.holds_lease, claim.runs) == (False, ())
    assert run_row(connection, run_id)["status"] == "PENDING"


def test_only_the_current_claim_can_record_the_end_of_a_run(
    database_url: str, connection: Connection
) -> None:
    run_id = enqueue(connection, {}).id
    with (
        closing(steward_store(database_url)) as steward,
        closing(worker_store(database_url, "lost")) as lost,
        closing(worker_store(database_url, "next")) as worker,
    ):
        (first,) = lost.finish_and_claim((), max_runs=1).runs
        steward.reset_worker(lost_worker("lost"))
        (second,) = worker.finish_and_claim((), max_runs=1).runs
        late = Settlement(run_id, first.claim, Status.SUCCESSFUL, result="1")
        assert lost.finish_and_claim([late], max_runs=0).settled == 0
        assert run_row(connection, run_id)["status"] == "RUNNING"
        assert worker.finish_and_claim([late._replace(claim=second.claim)], max_runs=0).settled == 1
    assert run_row(connection, run_id)["status"] == "SUCCESSFUL"


@pytest.mark.parametrize(
    ("name", "columns"),
    [("complete_run", {"result": "1", "last_attempt": "{}"}), ("save_metadata", {"metadata": '{"step": 1}'})],
)
def test_a_task_can_write_to_its_run_only_while_its_claim_is_current(
    database_url: str, connection: Connection, name: str, columns: dict[str, str]
) -> None:
    run_id = enqueue(connection, {}).id
    with closing(steward_store(database_url)) as steward:
        claims = []
        for worker_id in ("lost", "next"):
            with closing(worker_store(database_url, worker_id)) as worker:
                claims += [run.claim for run in worker.finish_and_claim((), max_runs=1).runs]
            if worker_id == "lost":
                steward.reset_worker(lost_worker(worker_id))

    def written(worker_id: str, claim: int) -> list[int]:
        held = {"run_id": run_id, "worker_id": worker_id, "claim": claim}
        return [row.id for row in fetch(connection, statement(name), held | columns)]

    before = run_row(connection, run_id)
    for worker_id, claim in (("lost", claims[0]), ("next", claims[0]), ("lost", claims[1])):
        assert written(worker_id, claim) == []
    assert run_row(connection, run_id) == before
    assert written("next", claims[1]) == [run_id]
    assert run_row(connection, run_id) != before
