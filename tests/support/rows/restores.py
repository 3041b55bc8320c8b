"""A database with a past, as it is dumped, and what has come of it elsewhere."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import timedelta
from typing import Any

import psycopg

from reproq_prefork import enqueue
from reproq_prefork.model.run import Status
from reproq_prefork.model.settlement import Settlement
from reproq_prefork.spec import Spec
from tests.support.rows.stores import worker_store

DUE, LATER, DONE, HELD = 20, 10, 30, 5


def give_a_past(url: str) -> None:
    """Runs of each kind, that a worker has worked at: it holds some, and is still registered."""
    with psycopg.connect(url, autocommit=True) as connection, closing(worker_store(url)) as store:
        for number in range(DONE + HELD):
            enqueue(connection, {"done": number})
        for _ in range(DONE):
            (run,) = store.finish_and_claim([], max_runs=1).runs
            store.finish_and_claim([Settlement(run.id, run.claim, Status.SUCCESSFUL, "1")], max_runs=0)
        assert len(store.finish_and_claim([], max_runs=HELD).runs) == HELD
        for number in range(DUE):
            enqueue(connection, {"due": number}, unique_key=f"key {number}")
        for number in range(LATER):
            enqueue(connection, {"later": number}, run_after=timedelta(hours=1))
        connection.execute(
            "insert into reproq_waiters (run_id, waiter, expires_at) values (1, 'w', now() + interval '1 hour')"
        )


def runs_of(url: str) -> dict[int, dict[str, Any]]:
    """Every row of task_runs, by its id."""
    with psycopg.connect(url) as connection:
        rows = connection.execute("select id, to_jsonb(run) from task_runs as run order by id").fetchall()
    return dict(rows)


def specs_of(url: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute("select spec_key, run_id from reproq_specs order by 1, 2").fetchall()


def statuses_of(url: str) -> dict[str, int]:
    with psycopg.connect(url) as connection:
        return dict(connection.execute("select status, count(*) from task_runs group by 1").fetchall())


def assert_arrived_once(original: str, copy: str) -> None:
    """All runs and specs are there, as they were, and a new run gets an id of its own."""
    runs = runs_of(original)
    assert json.dumps(runs_of(copy), sort_keys=True) == json.dumps(runs, sort_keys=True)
    assert_specs_and_sequence(copy)
    assert specs_of(copy) == specs_of(original)


def assert_specs_and_sequence(url: str) -> None:
    """A spec for each run, and a sequence that is ahead of all of them."""
    with psycopg.connect(url) as connection:
        ids = connection.execute("select id from task_runs order by 1").fetchall()
        assert connection.execute("select run_id from reproq_specs order by 1").fetchall() == ids
        new = enqueue(connection, {"new": True})
        assert new.id > max((run_id for (run_id,) in ids), default=0)
        found = connection.execute(
            "select run_id from reproq_specs where spec_key = reproq_spec_key(%s)",
            [Spec.of({"new": True}).hash],
        ).fetchall()
        assert found == [(new.id,)]
        connection.rollback()


def marks_of(url: str) -> tuple[int, int, int]:
    """How many foreign notes, workers and waiters there are."""
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "select (select count(*) from reproq_foreign_notes()), (select count(*) from reproq_workers),"
            " (select count(*) from reproq_waiters)"
        ).fetchone()
    assert row is not None
    return row
