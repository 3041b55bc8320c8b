"""A worker and a steward as the database sees them, for tests that need no processes."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from reproq_prefork.model.identity import HostIdentity, ProcessIdentity, WorkerIdentity
from reproq_prefork.model.outcome import FailureKind
from reproq_prefork.model.run import LostWorker
from reproq_prefork.store.steward_store import StewardStore
from reproq_prefork.store.worker_store import WorkerStore

HOST = HostIdentity("host", "boot:1")


def worker_store(
    database_url: str, worker_id: str = "w", *, queues: tuple[str, ...] = ("default",), lease_s: float = 60
) -> WorkerStore:
    """A registered worker's; close it."""
    process = ProcessIdentity(1, 1)
    identity = WorkerIdentity(worker_id, HOST, process, process, "0", queues)
    store = WorkerStore(database_url, identity, lease_s=lease_s)
    store.register()
    return store


def steward_store(
    database_url: str, *, queues: tuple[str, ...] = ("default",), max_attempts_ceiling: int | None = None
) -> StewardStore:
    """Close it."""
    return StewardStore(
        database_url,
        application_name="a test's steward",
        queues=queues,
        max_attempts_ceiling=max_attempts_ceiling,
    )


def lost_worker(
    worker_id: str = "w", *, started: tuple[int, int] | None = None, refund: bool = False
) -> LostWorker:
    return LostWorker(worker_id, started, False, refund, FailureKind.WORKER_LOST, "the worker died")


def end_leases(connection: psycopg.Connection[Any], table: str) -> None:
    """The leases that `task_runs` or `reproq_workers` has are over."""
    statement = sql.SQL(
        "update {} set lease_expires_at = now() - interval '5 s' where lease_expires_at is not null"
    )
    connection.execute(statement.format(sql.Identifier(table)))
