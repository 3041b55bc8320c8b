"""Rows of `task_runs` that no API makes: every column at the extremes of its type, for workers to live with."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from hypothesis import strategies as st

from tests.support.checkout import CHECKOUT
from tests.support.postgres.databases import as_login
from tests.support.supervisor.supervisor import Connection, Supervisor, insert_run
from tests.support.waiting import wait_until

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
ENDED_WITHIN_S = 30.0

TIMES = (
    "-infinity",
    "4713-01-01 BC",
    "0044-03-15 BC",
    "0001-01-01 UTC",
    "9999-12-31",
    "20000-01-01",
    "infinity",
)
REALS = (math.nan, math.inf, -math.inf, 3e38, -3e38, 1e15, 1e-45, -1.0)
SMALLINTS = (-(2**15), -1000, 2**15 - 1)
INTEGERS = (-(2**31), -1, 2**31 - 1)
BIGINTS = (-(2**63), -1, 2**63 - 1)
NAMES = ("", "n" * 10_000, "a,b", " a", "a\nb", "\x1b[2J", "\u202e", "ä" * 128)
DOCUMENTS = (
    "null",
    "7",
    '"text"',
    "{}",
    "[]",
    "[null]",
    "[[1]]",
    '{"v": 1, "task": 7}',
    "1e131071",
    "[1e-300]",
)

# What a producer may set, at the extremes of its type; None in place of what is NOT NULL, too.
BY_PRODUCER: dict[str, Sequence[Any]] = {
    "queue_name": (*NAMES, None),
    "spec_hash": ("", "a" * 63, "A" * 64, "g" * 64, "a" * 10_000, None),
    "priority": (*SMALLINTS, None),
    "run_after": TIMES,
    "max_attempts": (*INTEGERS, 0, None),
    "timeout_seconds": REALS,
    "unique_key": ("", "k" * 1_024, "k" * 10_000),
    "replay_of": BIGINTS,
    "executor": ("", "fork", "inline", "Fork", "x" * 10_000),
    "atomic": (True, None),
    "retry_base_seconds": REALS,
    "retry_max_seconds": REALS,
}
# And what else whoever may INSERT into all columns may set.
OF_OTHERS: dict[str, Sequence[Any]] = {
    "id": (0, *BIGINTS),
    "task_path": ("", "t" * 10_000),
    "status": ("RUNNING", "SUCCESSFUL", "FAILED", "CANCELLED", "", "x" * 10_000),
    "attempts": INTEGERS,
    "claims": BIGINTS,
    "leased_by": ("", "w" * 10_000),
    "lease_expires_at": TIMES,
    "worker_ids": (
        [["a", "b"], ["c", "d"]],
        ["a", None],
        [None],
        [["a", None]],
        ["w" * 10_000],
        "[5:6]={a,b}",
    ),
    "result": DOCUMENTS,
    "errors": DOCUMENTS,
    "enqueued_at": TIMES,
    "started_at": TIMES,
    "last_attempted_at": TIMES,
    "finished_at": TIMES,
    "cancel_requested_at": TIMES,
    "metadata": DOCUMENTS,
    "last_attempt": DOCUMENTS,
    "finish_due_at": TIMES,
}

# Payloads that are calls of Python tasks, or nearly, and others.
PAYLOADS: Sequence[Any] = (
    {},
    [],
    None,
    7,
    "text",
    {"v": 1},
    {"v": 1, "task": "odd_tasks.succeed", "args": 7, "kwargs": []},
    {"v": 2, "task": "odd_tasks.succeed", "args": [], "kwargs": {}},
    {"v": 1, "task": "odd_tasks." + "x" * 10_000, "args": [], "kwargs": {}},
    {"v": 1, "task": "\u202e", "args": [], "kwargs": {"n": 10**300}},
)


def made_up_row(extremes: Mapping[str, Sequence[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Up to eight of these columns, each at an extreme of its type or anywhere in it."""
    return st.fixed_dictionaries(
        {}, optional={name: _made_up(name, extremes[name]) for name in extremes}
    ).map(lambda columns: dict(list(columns.items())[:8]))


def _made_up(name: str, extremes: Sequence[Any]) -> st.SearchStrategy[Any]:
    anywhere: dict[int, st.SearchStrategy[Any]] = {
        id(TIMES): st.one_of(
            st.integers(1, 4712).map(lambda year: f"{year:04}-02-28 BC"),
            st.integers(1, 294275).map(lambda year: f"{year:04}-12-31 23:59:59.999999 UTC"),
        ),
        id(REALS): st.floats(width=32),
        id(BIGINTS): st.integers(-(2**63), 2**63 - 1),
        id(INTEGERS): st.integers(-(2**31), 2**31 - 1),
    }
    values = st.sampled_from(list(extremes))
    return values | anywhere.get(id(extremes), values)


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
        where = CHECKOUT
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
        return insert_run(connection, payload, **columns)
    except (psycopg.IntegrityError, psycopg.DataError):
        return None


def without_limits(connection: psycopg.Connection[Any]) -> None:
    """From now on nothing refuses a row: no CHECK, and no trigger but the one that names its task."""
    rows = connection.execute(
        "select conname from pg_constraint where conrelid = 'task_runs'::regclass and contype = 'c'"
    ).fetchall()
    for (name,) in rows:
        connection.execute(
            psycopg.sql.SQL("alter table task_runs drop constraint {}").format(psycopg.sql.Identifier(name))
        )
    connection.execute("alter table task_runs disable trigger user")
    connection.execute("alter table task_runs enable trigger task_runs_name_task")


def wait_for_ends(connection: Connection, runs: Sequence[int], *, timeout_s: float = ENDED_WITHIN_S) -> None:
    """Until each of them has a final status, but for those of another queue and those that are not due."""

    def left() -> list[Any]:
        return connection.execute(
            "select id, status, attempts, claims, run_after::text, left(leased_by, 50), lease_expires_at::text,"
            " left(errors::text, 500)"
            " from task_runs where id = any (%s) and status = any (%s)"
            " and queue_name = 'default' and coalesce(run_after, enqueued_at) <= now() order by id limit 3",
            [list(runs), ["PENDING", "RUNNING"]],
        ).fetchall()

    try:
        wait_until(lambda: not left(), timeout_s, "all runs to end")
    except AssertionError as missed:
        raise AssertionError(f"{missed}; there are {left()!r}") from None


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
