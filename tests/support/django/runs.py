"""Rows of `task_runs` as a busy site has them, written at once."""

from __future__ import annotations

import json
from typing import Any

from django.db import connection

HASH = "ab" * 32


def add_run(
    *,
    task: str | None = "shop.tasks.send_receipt",
    payload: Any = None,
    status: str = "PENDING",
    spec_hash: str = HASH,
    **columns: Any,
) -> int:
    """A run with these columns, as a worker would have left it; gives its id."""
    if payload is None:
        payload = {"v": 1, "task": task, "args": [1842], "kwargs": {"copy": True}} if task else {"order": 7}
    values: dict[str, Any] = {
        "payload": payload if isinstance(payload, str) else json.dumps(payload),
        "spec_hash": spec_hash,
        "status": status,
        **columns,
    }
    if status == "RUNNING":
        values.setdefault("leased_by", "worker-web-1.0")
        values.setdefault("lease_expires_at", "tomorrow")
    for name in ("result", "errors", "metadata", "last_attempt"):
        if name in values:
            values[name] = json.dumps(values[name])
    names = ", ".join(values)
    with connection.cursor() as cursor:
        cursor.execute("set reproq.restore = on")
        cursor.execute(
            f"insert into task_runs ({names}) values ({', '.join(['%s'] * len(values))}) returning id",  # noqa: S608
            list(values.values()),
        )
        run_id = int(cursor.fetchone()[0])
        cursor.execute("reset reproq.restore")
    return run_id


def add_worker(
    worker_id: str, *, host: str = "web-1", queues: tuple[str, ...] = ("default",), lease: str = "20 s"
) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "insert into reproq_workers (id, host, host_identity, pid, pid_started, master_pid, master_started, "
            "version, queues, started_at, lease_expires_at) "
            "values (%s, %s, 'boot', 4242, 1, 4200, 1, '0.1.0', %s, now() - interval '2 h', now() + %s::interval)",
            [worker_id, host, list(queues), lease],
        )


def add_many(number: int, *, spec_hash: str = "0" * 64) -> None:
    """So many that were successful, in one statement."""
    with connection.cursor() as cursor:
        cursor.execute("set reproq.restore = on")
        cursor.execute(
            "insert into task_runs (payload, spec_hash, status, finished_at) "
            "select '{}', %s, 'SUCCESSFUL', now() from generate_series(1, %s)",
            [spec_hash, number],
        )
        cursor.execute("reset reproq.restore")
