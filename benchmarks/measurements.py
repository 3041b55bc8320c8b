"""The measurements. Each empties the table, measures once, and gives one number (or a list of them)."""

from __future__ import annotations

import multiprocessing
import time
from typing import Any, LiteralString

import psycopg

from benchmarks.engine import supervisor
from reproq_prefork.identity import HostIdentity, ProcessIdentity, WorkerIdentity
from reproq_prefork.store.worker_store import WorkerStore
from reproq_prefork.task_run import Settlement, Status

Connection = psycopg.Connection[tuple[Any, ...]]

POLL_S = 0.02
PICK_UP_PAUSE_S = 0.05
ENQUEUE: LiteralString = (
    "insert into task_runs (payload, spec_hash)"
    " select jsonb_build_object('n', n), encode(sha256(n::text::bytea), 'hex') from generate_series(1, %s) n"
)


def drain_per_s(database_url: str, *, workers: int, runs: int) -> float:
    """No-op runs a second, by the server's clock: from the first claim to the last result."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        _fill(connection, runs)
        with supervisor(database_url, "--workers", str(workers)):
            _wait_until_done(connection, runs)
        return runs / _seconds(connection)


def statements_per_s(database_url: str, *, processes: int, runs: int) -> float:
    """Runs a second through `finish_and_claim` alone, one commit a run: the ceiling for any executor."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        _fill(connection, runs)
        loops = [
            multiprocessing.Process(target=_claim_and_finish, args=(database_url, f"bench-{number}"))
            for number in range(processes)
        ]
        for loop in loops:
            loop.start()
        for loop in loops:
            loop.join()
        connection.execute("delete from reproq_workers")
        return runs / _seconds(connection)


def _claim_and_finish(database_url: str, worker_id: str) -> None:
    nobody = ProcessIdentity(0, 0)
    identity = WorkerIdentity(worker_id, HostIdentity("bench", "bench"), nobody, nobody, "0", ("default",))
    store = WorkerStore(database_url, identity, lease_s=60)
    store.register()
    settlement: Settlement | None = None
    while True:
        claim = store.finish_and_claim([] if settlement is None else [settlement], max_runs=1)
        if not claim.runs:
            store.close()
            return
        run = claim.runs[0]
        settlement = Settlement(run.id, run.claim, Status.SUCCESSFUL, result="null")


def pick_up_ms(database_url: str, *, runs: int) -> list[float]:
    """Milliseconds from one INSERT into an idle queue to its claim, both by the server's clock."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        _fill(connection, 1)  # a first run shows that the engine is up
        with supervisor(database_url, "--workers", "2"):
            _wait_until_done(connection, 1)
            for number in range(2, runs + 2):
                connection.execute(ENQUEUE, [1])
                _wait_until_done(connection, number)
                time.sleep(PICK_UP_PAUSE_S)
        rows = connection.execute(
            "select extract(epoch from started_at - enqueued_at) * 1000 from task_runs order by id offset 1"
        ).fetchall()
        return [float(milliseconds) for (milliseconds,) in rows]


def _fill(connection: Connection, runs: int) -> None:
    connection.execute("truncate task_runs")
    connection.execute(ENQUEUE, [runs])
    connection.execute("vacuum analyze task_runs")


def _wait_until_done(connection: Connection, runs: int) -> None:
    while True:
        row = connection.execute("select count(*) from task_runs where status = 'SUCCESSFUL'").fetchone()
        if row == (runs,):
            return
        time.sleep(POLL_S)


def _seconds(connection: Connection) -> float:
    row = connection.execute(
        "select extract(epoch from max(finished_at) - min(started_at)) from task_runs"
    ).fetchone()
    assert row is not None
    return float(row[0])
