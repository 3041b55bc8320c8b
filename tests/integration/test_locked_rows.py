"""What each statement of a worker and a steward does with a run that somebody else has locked.

A claim and a sweep pass by it at once: other runs are there, and the locked one is found the next time. A reset
waits, for nobody else will reset that worker, and then decides by what the run has become.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from reproq_prefork import enqueue
from reproq_prefork.model.run import ClaimedRun
from reproq_prefork.store.steward_store import StewardStore
from reproq_prefork.store.worker_store import WorkerStore
from tests.support.rows.stores import end_leases, lost_worker
from tests.support.supervisor.supervisor import run_row
from tests.support.waiting import wait_until

Connection = psycopg.Connection[Any]

AT_ONCE_S = 1.0  # half of what a statement waits for a lock before it is refused
WAITS_FOR_A_LOCK = """
    select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
"""


@contextmanager
def locked(database_url: str, *run_ids: int) -> Iterator[Connection]:
    """Another's transaction that has these runs locked until the end, or until it is committed before."""
    with psycopg.connect(database_url) as other:
        other.execute("select from task_runs where id = any (%s) for update", [list(run_ids)])
        yield other
        other.rollback()


def claimed(worker: WorkerStore, runs: int = 1) -> Sequence[ClaimedRun]:
    claim = worker.finish_and_claim((), max_runs=runs)
    return claim.runs


def put_back(steward: StewardStore, at: ClaimedRun, what: str) -> None:
    """The runs of worker w, by one of the two statements of a steward that wait for a lock."""
    if what == "reset":
        steward.reset_worker(lost_worker())
    else:
        steward.hand_back_waiting("w", at.id, at.claim)


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


def test_a_claim_skips_a_locked_run_at_once(
    database_url: str, connection: Connection, worker: WorkerStore
) -> None:
    first, second = (enqueue(connection, number).id for number in range(2))
    with locked(database_url, first):
        began = time.monotonic()
        assert [run.id for run in claimed(worker, 2)] == [second]
        assert claimed(worker, 2) == ()
        assert time.monotonic() - began < AT_ONCE_S
    assert [run.id for run in claimed(worker, 2)] == [first]


def test_a_sweep_skips_a_locked_run_at_once(
    database_url: str, connection: Connection, worker: WorkerStore, steward: StewardStore
) -> None:
    first, second = (enqueue(connection, number).id for number in range(2))
    claimed(worker, 2)
    for table in ("task_runs", "reproq_workers"):
        end_leases(connection, table)
    with locked(database_url, first):
        began = time.monotonic()
        assert [run.id for run in steward.sweep_expired()] == [second]
        assert steward.sweep_expired() == ()
        assert time.monotonic() - began < AT_ONCE_S
    assert [run.id for run in steward.sweep_expired()] == [first]


@pytest.mark.parametrize("what", ["reset", "hand back"])
def test_a_reset_waits_for_a_locked_run_and_uses_its_latest_state(
    database_url: str, connection: Connection, worker: WorkerStore, steward: StewardStore, what: str
) -> None:
    """A concurrent cancel is not missed. Otherwise the run would be PENDING and run again."""
    runs = [enqueue(connection, number).id for number in range(2)]
    at, waiting = claimed(worker, 2)
    assert [at.id, waiting.id] == runs

    with psycopg.connect(database_url) as other:
        other.execute("update task_runs set cancel_requested_at = now() where id = %s", [waiting.id])
        with beside(connection, lambda: put_back(steward, at, what)):
            other.commit()
    row = run_row(connection, waiting.id)
    assert (row["status"], row["attempts"], row["leased_by"]) == ("CANCELLED", 0, None)


@pytest.mark.parametrize("what", ["reset", "hand back"])
def test_a_run_that_ends_before_its_reset_stays_unchanged(
    database_url: str, connection: Connection, worker: WorkerStore, steward: StewardStore, what: str
) -> None:
    for number in range(2):
        enqueue(connection, number)
    at, waiting = claimed(worker, 2)

    with psycopg.connect(database_url) as other:
        other.execute(
            "update task_runs set status = 'SUCCESSFUL', result = '1', finished_at = now(), leased_by = null,"
            " lease_expires_at = null where id = %s",
            [waiting.id],
        )
        with beside(connection, lambda: put_back(steward, at, what)):
            other.commit()
    row = run_row(connection, waiting.id)
    assert (row["status"], row["result"], row["attempts"], row["errors"]) == ("SUCCESSFUL", 1, 1, [])
