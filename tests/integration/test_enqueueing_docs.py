"""docs/enqueueing.md: each of its programs is run as it stands, and leaves what the page says."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from reproq_prefork.spec import spec_hash
from tests.support.checkout import CHECKOUT
from tests.support.django.databases import connection_settings
from tests.support.pages import code_blocks

Connection = psycopg.Connection[Any]

PAGE = (CHECKOUT / "docs" / "enqueueing.md").read_text(encoding="utf-8")
TIMEOUT_S = 50
TASKS = """
from reproq_prefork import task

@task
def welcome(user_id):
    ...
"""
FINISH = """
    with ended as (
        update task_runs
        set status = 'SUCCESSFUL', result = '{"greeting": "Hello"}', finished_at = now()
        where status = 'PENDING'
        returning id
    )
    select pg_notify('reproq_finished', id::text) from ended
"""
ADA = {"name": "Ada"}


def welcome(user_id: int) -> dict[str, Any]:
    return {"v": 1, "task": "shop.tasks.welcome", "args": [user_id], "kwargs": {}}


# What each program of the page enqueues, in its order.
ENQUEUED: list[list[Any]] = [
    [ADA],
    [{"order": number} for number in range(1000)],
    [welcome(7), welcome(8), welcome(9), welcome(10)],
    [ADA, ADA],
    [ADA],
    [ADA, welcome(7)],
    [ADA, welcome(7)],
    [ADA],
    [ADA, {"name": "Ben"}],
    [ADA],
    [ADA],
]


@pytest.fixture
def worker(database_url: str) -> Iterator[None]:
    """Ends each run."""
    over = threading.Event()

    def work() -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            while not over.wait(0.02):
                connection.execute(FINISH)

    thread = threading.Thread(target=work)
    thread.start()
    yield
    over.set()
    thread.join()


def test_each_program_of_the_page_is_known() -> None:
    assert len(code_blocks(PAGE, "python")) == len(ENQUEUED)


def run_program(program: str, url: str, directory: Path) -> str:
    package = directory / "shop"
    package.mkdir()
    (package / "__init__.py").touch()
    given = f"DATABASE_URL, DATABASES = {url!r}, {{'default': {connection_settings(url)!r}}}"
    (package / "tasks.py").write_text(TASKS, encoding="utf-8")
    (directory / "program.py").write_text(f"{given}\n{program}", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", "program.py"],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(directory)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("number", range(len(ENQUEUED)))
def test_a_program_of_the_page_enqueues_what_it_says(
    number: int, database_url: str, connection: Connection, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    program = code_blocks(PAGE, "python")[number]
    if "timeout=60" in program:
        request.getfixturevalue("worker")
    printed = run_program(program, database_url, tmp_path)
    rows = connection.execute("select payload from task_runs order by id").fetchall()
    assert [row[0] for row in rows] == ENQUEUED[number]
    if "ended.result" in program:
        assert printed == "SUCCESSFUL {'greeting': 'Hello'}\n"


def test_the_first_program_has_the_options_that_it_names(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    run_program(code_blocks(PAGE, "python")[0], database_url, tmp_path)
    assert connection.execute("select queue_name, unique_key from task_runs").fetchall() == [
        ("mail", "greet-7")
    ]
    assert connection.execute("select id from orders").fetchall() == [(7,)]


def test_the_sql_of_the_page_enqueues_what_it_says(connection: Connection) -> None:
    insert, call, find = code_blocks(PAGE, "sql")
    connection.execute(insert.encode())
    row = connection.execute(call.encode()).fetchone()
    assert row is not None
    assert (row[1], row[2]) == (spec_hash(ADA), True)
    first, second = connection.execute(
        "select id, payload, spec_hash, queue_name, priority, run_after - enqueued_at, max_attempts, "
        "timeout_seconds, unique_key from task_runs order by id"
    ).fetchall()
    assert first[1:5] == (ADA, spec_hash(ADA), "default", 0)
    assert second[1:] == (ADA, spec_hash(ADA), "mail", 10, timedelta(hours=1), 5, 60, "greet-7")
    assert connection.execute(find.encode()).fetchall() == [(second[0], "PENDING"), (first[0], "PENDING")]
    assert connection.execute(call.encode()).fetchone() == (row[0], row[1], False)
