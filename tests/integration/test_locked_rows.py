"""What each statement of a worker and a steward does with a run that somebody else has locked.

A claim and a sweep pass by it at once: other runs are there, and the locked one is found the next time. A reset
waits, for nobody else will reset that worker, and then decides by what the run has become.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg
import pytest

from reproq_prefork import enqueue
from reproq_prefork.store.steward_store import StewardStore
from reproq_prefork.store.worker_store import WorkerStore
from reproq_prefork.task_run import ClaimedRun
from tests.stores import lost_worker, steward_store, worker_store
from tests.supervisor import run_row
from tests.waiting import wait_until

Connection = psycopg.Connection[Any]

AT_ONCE_S = 1.0  # half of what a statement waits for a lock before it is refused
WAITS_FOR_A_LOCK = """
    select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
"""


@pytest.fixture
def worker(database_url: str) -> Iterator[WorkerStore]:
    with closing(worker_store(database_url)) as store:
        yield store


@pytest.fixture
def steward(database_url: str) -> Iterator[StewardStore]:
    with closing(steward_store(database_url)) as store:
        yield store


@contextmanager
def locked(database_url: str, *run_ids: int) -> Iterator[Connection]:
    """Another's transaction that has these runs locked until the end, or until it is committed before."""
    with psycopg.connect(database_url) as other:
        other.execute("select from task_runs where id = any (%s) for update", [list(run_ids)])
        yield other
        other.rollback()


def claimed(worker: WorkerStore, runs: int = 1) -> tuple[ClaimedRun, ...]:
    claim = worker.finish_and_claim((), max_runs=runs)
    return claim.runs


def lose_their_lease(connection: Connection) -> None:
    for table in ("task_runs", "reproq_workers"):
        connection.execute(
            f"update {table} set lease_expires_at = now() - interval '5 s'"  # noqa: S608
            " where lease_expires_at is not null"
        )


@contextmanager
def beside(connection: Connection, statement: Callable[[], object]) -> Iterator[None]:
    """`statement` is sent, and waits for a lock while the block begins; it has its answer when this ends."""
    thread = threading.Thread(target=statement)
    thread.start()
    try:
        wait_until(
            lambda: connection.execute(WAITS_FOR_A_LOCK).fetchone() == (1,), 5, "it to wait for the lock"
        )
        yield
    finally:
        thread.join(10)


def test_a_claim_passes_by_a_locked_run_at_once(
    database_url: str, connection: Connection, worker: WorkerStore
) -> None:
    first, second = (enqueue(connection, number).id for number in range(2))
    with locked(database_url, first):
        began = time.monotonic()
        assert [run.id for run in claimed(worker, 2)] == [second]
        assert claimed(worker, 2) == ()
        assert time.monotonic() - began < AT_ONCE_S
    assert [run.id for run in claimed(worker, 2)] == [first]


def test_a_sweep_passes_by_a_locked_run_at_once(
    database_url: str, connection: Connection, worker: WorkerStore, steward: StewardStore
) -> None:
    first, second = (enqueue(connection, number).id for number in range(2))
    claimed(worker, 2)
    lose_their_lease(connection)
    with locked(database_url, first):
        began = time.monotonic()
        assert [run.id for run in steward.sweep_expired()] == [second]
        assert steward.sweep_expired() == ()
        assert time.monotonic() - began < AT_ONCE_S
    assert [run.id for run in steward.sweep_expired()] == [first]


@pytest.mark.parametrize("what", ["reset", "hand back"])
def test_what_resets_a_run_waits_for_its_lock_and_decides_by_what_it_has_become(
    database_url: str, connection: Connection, worker: WorkerStore, steward: StewardStore, what: str
) -> None:
    """A cancel that is on its way is not missed: the run would be PENDING, and run again."""
    runs = [enqueue(connection, number).id for number in range(2)]
    at, waiting = claimed(worker, 2)
    assert [at.id, waiting.id] == runs

    def put_back() -> None:
        if what == "reset":
            steward.reset_worker(lost_worker())
        else:
            steward.hand_back_waiting("w", at.id, at.claim)

    with psycopg.connect(database_url) as other:
        other.execute("update task_runs set cancel_requested_at = now() where id = %s", [waiting.id])
        with beside(connection, put_back):
            other.commit()
    row = run_row(connection, waiting.id)
    assert (row["status"], row["attempts"], row["leased_by"]) == ("CANCELLED", 0, None)


def test_what_has_ended_while_a_reset_waited_for_it_stays_as_it_is(
    database_url: str, connection: Connection, worker: WorkerStore, steward: StewardStore
) -> None:
    (run,) = claimed(worker) if enqueue(connection, {}) else ()
    with psycopg.connect(database_url) as other:
        other.execute(
            "update task_runs set status = 'SUCCESSFUL', result = '1', finished_at = now(), leased_by = null,"
            " lease_expires_at = null where id = %s",
            [run.id],
        )
        with beside(connection, lambda: steward.reset_worker(lost_worker())):
            other.commit()
    row = run_row(connection, run.id)
    assert (row["status"], row["result"], row["errors"]) == ("SUCCESSFUL", 1, [])


@pytest.mark.parametrize(("ceiling", "status"), [(None, "PENDING"), (3, "PENDING"), (2, "FAILED")])
def test_the_hosts_ceiling_of_attempts_counts_for_what_a_dead_worker_was_at(
    database_url: str, connection: Connection, ceiling: int | None, status: str
) -> None:
    run_id = enqueue(connection, {}, max_attempts=5).id
    with closing(steward_store(database_url, max_attempts_ceiling=ceiling)) as steward:
        for attempt in (1, 2):
            with closing(worker_store(database_url, f"w{attempt}")) as worker:
                (run,) = claimed(worker)
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
                assert [run.attempt for run in claimed(worker)] == [attempt]
            lose_their_lease(connection)
            assert [run.charged for run in steward.sweep_expired()] == [True]
    assert run_row(connection, run_id)["status"] == status
