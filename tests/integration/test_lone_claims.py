"""Claims of one run by its id, and the end of a server process, as the database has them."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import psycopg
import pytest

from reproq_prefork import cancel, enqueue
from reproq_prefork.model.run import ClaimedRun
from reproq_prefork.store.steward_store import StewardStore
from reproq_prefork.store.worker_store import WorkerStore
from tests.support.rows.stores import end_leases, lost_worker, worker_store
from tests.support.supervisor.supervisor import run_row

Connection = psycopg.Connection[Any]


# --- one run by its id ---


def test_a_run_is_claimed_by_its_id_once(connection: Connection, worker: WorkerStore) -> None:
    run_id = enqueue(connection, {}).id
    claimed = worker.claim_run(run_id)
    assert claimed.holds_lease
    assert claimed.run is not None
    assert claimed.run.token == (run_id, 1)
    assert worker.claim_run(run_id).run is None
    row = run_row(connection, run_id)
    assert (row["status"], row["claims"], row["attempts"], row["worker_ids"]) == ("RUNNING", 1, 1, ["w"])


def test_a_run_that_has_ended_is_not_claimed(connection: Connection, worker: WorkerStore) -> None:
    run_id = cancel(connection, enqueue(connection, {}).id).id
    assert worker.claim_run(run_id).run is None
    assert run_row(connection, run_id)["status"] == "CANCELLED"


def test_without_a_lease_nothing_is_claimed(connection: Connection, worker: WorkerStore) -> None:
    run_id = enqueue(connection, {}).id
    end_leases(connection, "reproq_workers")
    claimed = worker.claim_run(run_id)
    assert (claimed.holds_lease, claimed.run) == (False, None)
    assert run_row(connection, run_id)["status"] == "PENDING"


@pytest.mark.parametrize("what", ["look", "claim"])
def test_a_locked_run_is_skipped(
    database_url: str, connection: Connection, worker: WorkerStore, what: str
) -> None:
    """A statement that waited would be refused after two seconds, and the run would be blamed."""
    first, second = (enqueue(connection, number).id for number in range(2))
    with psycopg.connect(database_url) as other:
        other.execute("select from task_runs where id = %s for update", [first])
        if what == "look":
            assert worker.next_due_run(()) == second
        else:
            assert worker.claim_run(first).run is None


def test_a_claimed_run_is_read_only_by_its_current_claim(
    database_url: str, connection: Connection, worker: WorkerStore, steward: StewardStore
) -> None:
    run_id = enqueue(connection, {"n": 1}).id
    worker.claim_run(run_id)
    read = worker.read_claimed((run_id, 1))
    assert isinstance(read, ClaimedRun)
    assert read.payload == '{"n": 1}'
    steward.reset_worker(lost_worker())
    assert worker.read_claimed((run_id, 1)) is None
    with closing(worker_store(database_url, "next")) as other:
        other.claim_run(run_id)
        assert worker.read_claimed((run_id, 1)) is None
        assert worker.read_claimed((run_id, 2)) is not None


# --- the server process of a dead worker ---


def is_alive(connection: Connection, pid: int) -> bool:
    return connection.execute("select from pg_stat_activity where pid = %s", [pid]).fetchone() is not None


def test_the_registered_server_process_is_ended(
    connection: Connection, worker: WorkerStore, steward: StewardStore
) -> None:
    assert steward.end_backend_of("w")
    assert not is_alive(connection, worker.backend.pid)


def test_a_later_server_process_with_the_same_pid_is_left_alone(
    connection: Connection, worker: WorkerStore, steward: StewardStore
) -> None:
    connection.execute("update reproq_workers set backend_started = backend_started - interval '1 s'")
    assert steward.end_backend_of("w")
    assert is_alive(connection, worker.backend.pid)


def test_a_worker_does_not_end_its_own_server_process(connection: Connection, worker: WorkerStore) -> None:
    assert worker.end_previous_backend()
    assert worker.held_runs() == frozenset()
