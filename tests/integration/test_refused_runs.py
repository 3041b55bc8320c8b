"""Runs of lost workers of which the server refuses to change one: a steward's statements, on a real server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from reproq_prefork import enqueue
from reproq_prefork.model.run import ClaimedRun, Status
from reproq_prefork.steward.one_by_one import OneByOne
from reproq_prefork.store.outcomes import StatementRefused
from reproq_prefork.store.steward_store import StewardStore
from reproq_prefork.store.worker_store import ChangeableRun, WorkerStore
from reproq_prefork.text.log import Log, LogFormat, LogLevel
from tests.support.rows.refusals import ANY_CHANGE, ANY_END, doom, refuse
from tests.support.rows.stores import lost_worker
from tests.support.supervisor.supervisor import restoring, run_row

Connection = psycopg.Connection[Any]

TASK = {"v": 1, "task": "shop.send", "args": [], "kwargs": {}}


@pytest.fixture
def one_by_one() -> Iterator[OneByOne]:
    fd = os.open(os.devnull, os.O_WRONLY)
    yield OneByOne(Log(LogLevel.ERROR, LogFormat.CONSOLE, fd=fd))
    os.close(fd)


def claimed(connection: Connection, worker: WorkerStore, count: int) -> list[ClaimedRun]:
    for _ in range(count):
        enqueue(connection, TASK)
    return list(worker.finish_and_claim([], max_runs=count).runs)


def statuses(connection: Connection) -> list[str]:
    return [status for (status,) in connection.execute("select status from task_runs order by id")]


def test_a_reset_goes_past_a_run_that_is_refused(
    connection: Connection, worker: WorkerStore, steward: StewardStore, one_by_one: OneByOne
) -> None:
    refuse(connection, what=ANY_CHANGE)
    runs = claimed(connection, worker, 9)
    doom(connection, runs[4].id)
    lost = lost_worker(started=runs[2].token)
    with pytest.raises(StatementRefused):
        steward.reset_worker(lost)
    done = one_by_one.do(
        steward,
        lambda only: steward.reset_worker(lost, only=only, keep_registration=True),
        lambda: steward.held_runs("w"),
        may_fail=True,
    )
    assert sorted(run.id for run in done.runs) == [run.id for run in runs if run is not runs[4]]
    assert [run.id for run in done.runs if run.charged] == [runs[2].id]
    assert (done.is_all, done.is_apart) == (False, True)
    assert statuses(connection) == ["PENDING"] * 4 + ["RUNNING"] + ["PENDING"] * 4
    steward.forget_worker("w")
    assert connection.execute("select id from reproq_workers").fetchall() == [("w",)], "it still holds one"


def test_a_sweep_goes_past_a_run_that_is_refused(
    connection: Connection, worker: WorkerStore, steward: StewardStore, one_by_one: OneByOne
) -> None:
    refuse(connection, what=ANY_CHANGE)
    runs = claimed(connection, worker, 5)
    connection.execute("update task_runs set lease_expires_at = now() - interval '1 s'")
    connection.execute("delete from reproq_workers")
    doom(connection, runs[0].id)
    assert list(steward.expired_runs()) == [run.token for run in runs]
    done = one_by_one.do(
        steward, lambda only: steward.sweep_expired(only=only), steward.expired_runs, may_fail=True
    )
    assert len(done.runs) == 4
    assert statuses(connection) == ["RUNNING"] + ["PENDING"] * 4


def test_handing_back_runs_behind_a_long_run_skips_one_that_is_refused(
    connection: Connection, worker: WorkerStore, steward: StewardStore, one_by_one: OneByOne
) -> None:
    refuse(connection, what=ANY_CHANGE)
    runs = claimed(connection, worker, 4)
    doom(connection, runs[2].id)
    done = one_by_one.do(
        steward,
        lambda only: steward.hand_back_waiting("w", *runs[0].token, only=only),
        lambda: steward.held_runs("w"),
        may_fail=False,
    )
    assert sorted(run.id for run in done.runs) == [runs[1].id, runs[3].id]
    assert statuses(connection) == ["RUNNING", "PENDING", "RUNNING", "PENDING"]


def test_many_expired_runs_are_listed_in_pages(
    connection: Connection, worker: WorkerStore, steward: StewardStore
) -> None:
    with restoring(connection):
        connection.execute(
            "insert into task_runs (payload, spec_hash, status, claims, attempts, leased_by, lease_expires_at)"
            " select '{}', repeat('a', 64), 'RUNNING', 1, 1, 'gone', now() - interval '1 s'"
            " from generate_series(1, 1100)"
        )
    assert len(set(steward.expired_runs())) == 1100


def test_unrecorded_runs_of_a_dead_worker_count_as_started(
    connection: Connection, worker: WorkerStore, steward: StewardStore
) -> None:
    runs = claimed(connection, worker, 4)
    lost = replace(lost_worker(started=runs[0].token), unrecorded=(runs[1].token, (runs[2].id, 99)))
    reset = {run.id: run.charged for run in steward.reset_worker(lost)}
    assert reset == {runs[0].id: True, runs[1].id: True, runs[2].id: False, runs[3].id: False}


@pytest.mark.parametrize("reason", ["the reason", None])
def test_a_lost_run_can_be_failed_with_the_smallest_end(
    connection: Connection, worker: WorkerStore, steward: StewardStore, reason: str | None
) -> None:
    (run,) = claimed(connection, worker, 1)
    assert steward.fail_lost_run(run.id, run.claim + 1, reason) == ()
    ((failed),) = steward.fail_lost_run(run.id, run.claim, reason)
    assert (failed.status, failed.charged) == (Status.FAILED, True)
    row = run_row(connection, run.id)
    assert (row["status"], row["attempts"], row["leased_by"]) == ("FAILED", 1, None)
    assert row["finished_at"] == row["finish_due_at"] is not None
    assert row["errors"] == ([] if reason is None else [{"kind": "refused", "message": "the reason"}])


def test_a_cancelled_run_of_a_lost_worker_ends_cancelled(
    connection: Connection, worker: WorkerStore, steward: StewardStore
) -> None:
    (run,) = claimed(connection, worker, 1)
    connection.execute("update task_runs set cancel_requested_at = now()")
    steward.fail_lost_run(run.id, run.claim, "the reason")
    assert statuses(connection) == ["CANCELLED"]


# --- what a worker asks about its own ---


def test_claimed_runs_that_are_locked_or_cancelled_are_reported_as_such(
    database_url: str, connection: Connection, worker: WorkerStore
) -> None:
    refuse(connection, what=ANY_END)
    free, locked, cancelled, refused, gone = claimed(connection, worker, 5)
    doom(connection, refused.id)
    connection.execute("update task_runs set cancel_requested_at = now() where id = %s", [cancelled.id])
    connection.execute("update task_runs set claims = 2 where id = %s", [gone.id])
    with psycopg.connect(database_url) as other:
        other.execute("select from task_runs where id = %s for update", [locked.id])
        runs = worker.changeable_runs([run.token for run in (free, locked, cancelled, refused, gone)])
    assert runs == {
        free.token: ChangeableRun(is_free=True, is_python=True, is_cancelled=False),
        locked.token: ChangeableRun(is_free=False, is_python=True, is_cancelled=False),
        cancelled.token: ChangeableRun(is_free=True, is_python=True, is_cancelled=True),
        refused.token: ChangeableRun(is_free=True, is_python=True, is_cancelled=False),
    }


def test_an_old_server_process_stays_registered_until_it_is_gone(
    database_url: str, connection: Connection, worker: WorkerStore
) -> None:
    query = "select backend_pid, backend_started from reproq_workers"
    first = connection.execute(query).fetchone()
    with closing(WorkerStore(database_url, worker._identity, lease_s=60)) as again:
        assert again.reconnected(old_is_gone=False)
        assert connection.execute(query).fetchone() == first
        assert again.end_previous_backend()
        assert again.reconnected(old_is_gone=True)
        second = connection.execute(query).fetchone()
        assert second is not None
        assert second[0] == again.backend.pid
        assert second != first


def test_a_worker_that_holds_a_run_is_not_deregistered(connection: Connection, worker: WorkerStore) -> None:
    claimed(connection, worker, 1)
    assert not worker.deregister()
    connection.execute("delete from task_runs")
    assert worker.deregister()
    assert not worker.deregister()
