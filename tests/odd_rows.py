"""Rows of `task_runs` that no API makes: every column at the extremes of its type, for workers to live with."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from tests.databases import as_login
from tests.supervisor import Connection, Supervisor, add_run
from tests.waiting import wait_until

ROOT = Path(__file__).parents[1]
TASKS = """
from reproq_prefork import task

@task
def succeed(n):
    return n

@task
def fail():
    raise ValueError("it always fails")
"""
EXECUTORS = ("command", "fork", "inline", "django-fork", "django-inline")
FINAL = ("SUCCESSFUL", "FAILED", "CANCELLED")
ENDED_WITHIN_S = 30.0


@dataclass(frozen=True)
class Application:
    """What a supervisor runs, and the payloads of a run that succeeds and of one that always fails."""

    supervisor: Supervisor
    succeeds: Mapping[str, Any]
    fails: Mapping[str, Any]


def application(database_url: str, directory: Path, executor: str, *, workers: int = 2) -> Application:
    """Workers of one kind; the supervisor is still to be started."""
    if executor == "command":
        supervisor = Supervisor(database_url, directory, workers=workers)
        return Application(supervisor, {"value": 1}, {"exit": 3})
    environ: dict[str, str] = {}
    arguments: tuple[str, ...] = ()
    if executor.startswith("django"):
        arguments = ("--django", "tests.django.settings")
        module, good, bad = "tests.django.app.tasks", ("add", [1, 2]), ("fail", ["it always fails"])
        where = ROOT
    else:
        module, good, bad = "odd_tasks", ("succeed", [1]), ("fail", [])
        environ["ALLOWED_TASK_MODULES"] = module
        where = directory
        (directory / f"{module}.py").write_text(TASKS)
    supervisor = Supervisor(
        database_url,
        where,
        workers=workers,
        environ={
            "EXECUTOR_COMMAND": "",
            "REPROQ_EXECUTOR": executor.removeprefix("django-"),
            "PYTHONDONTWRITEBYTECODE": "1",
            **environ,
        },
        arguments=arguments,
        log_path=directory / f"supervisor-{os.urandom(3).hex()}.log",
        least_privilege=not executor.startswith("django"),
    )
    return Application(supervisor, _call(module, *good), _call(module, *bad))


def _call(module: str, name: str, args: Sequence[Any]) -> dict[str, Any]:
    return {"v": 1, "task": f"{module}.{name}", "args": list(args), "kwargs": {}}


def as_producer(database_url: str) -> Connection:
    """A connection with the rights of a producer and no others; close it."""
    return psycopg.connect(as_login(database_url, "producer"), autocommit=True)


def add_odd(connection: Connection, payload: Mapping[str, Any], columns: Mapping[str, Any]) -> int | None:
    """The id of the run; None: the server has refused it."""
    try:
        return add_run(connection, payload, **columns)
    except (psycopg.IntegrityError, psycopg.DataError):
        return None


def wait_for_ends(connection: Connection, runs: Sequence[int], *, timeout_s: float = ENDED_WITHIN_S) -> None:
    """Until each of them has a final status."""

    def left() -> list[Any]:
        return connection.execute(
            "select id, status from task_runs where id = any (%s) and status <> all (%s) order by id limit 3",
            [list(runs), list(FINAL)],
        ).fetchall()

    wait_until(lambda: not left() or None, timeout_s, f"all runs to end; there are {left()!r}")


def statuses(connection: Connection, runs: Sequence[int]) -> set[str]:
    rows = connection.execute(
        "select distinct status from task_runs where id = any (%s)", [list(runs)]
    ).fetchall()
    return {status for (status,) in rows}


def reason(connection: Connection, run_id: int) -> str:
    """What the last entry of its errors says, with its kind."""
    row = connection.execute("select errors -> -1 from task_runs where id = %s", [run_id]).fetchone()
    assert row is not None
    return f"{row[0]['kind']}: {json.dumps(row[0]['message'])}"
