"""`list`: which runs it finds, how it prints them, and that it is fast in a large table."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from reproq_prefork import Status, enqueue
from reproq_prefork.errors import ExitStatus
from reproq_prefork.store import listed_runs
from reproq_prefork.store.listed_runs import Wanted
from reproq_prefork.store.operator_store import OperatorStore
from tests.support.supervisor.command_line import CommandLine
from tests.support.supervisor.supervisor import restoring

Connection = psycopg.Connection[Any]
BOOM = json.dumps(
    [
        {"kind": "failed", "message": "old"},
        {"kind": "timeout", "message": "Boom at\nline 2", "stderr": "50% of it"},
    ]
)


@pytest.fixture
def cli(tmp_path: Path, database_url: str) -> CommandLine:
    return CommandLine(tmp_path, database_url)


def add(connection: Connection, age: str = "0", **columns: Any) -> int:
    """A run as an INSERT of a restore may leave it: with these columns, enqueued so long ago."""
    task = columns.pop("task", None)
    payload = json.dumps({"v": 1, "task": task, "args": [], "kwargs": {}} if task else {"n": 1})
    names = ["payload", "spec_hash", "enqueued_at", *columns]
    values = ["%s", "repeat('ab', 32)", f"now() - interval '{age}'", *["%s"] * len(columns)]
    with restoring(connection):
        row = connection.execute(
            f"insert into task_runs ({', '.join(names)}) values ({', '.join(values)}) returning id",  # noqa: S608
            [payload, *columns.values()],
        ).fetchone()
    assert row is not None
    return int(row[0])


def found(cli: CommandLine, *filters: str) -> list[int]:
    return [json.loads(line)["id"] for line in cli.output("list", "--json", *filters).splitlines()]


@pytest.fixture
def runs(connection: Connection) -> dict[str, int]:
    return {
        "old": add(connection, "3 days", status="SUCCESSFUL", queue_name="mail", task="shop.tasks.pay"),
        "failed": add(
            connection, "2 hours", status="FAILED", attempts=2, errors=BOOM, task="shop.tasks.send"
        ),
        "cancelled": add(connection, "1 hour", status="CANCELLED", queue_name="mail"),
        "running": add(
            connection, "1 hour", status="RUNNING", leased_by="w", lease_expires_at="2099-01-01", attempts=1
        ),
        "pending": add(connection, task="shop_tasks.pay"),
    }


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ([], ["pending", "running", "cancelled", "failed", "old"]),
        (["--limit", "2"], ["pending", "running"]),
        (["--status", "FAILED"], ["failed"]),
        (["--status", "pending", "--status", "RUNNING"], ["pending", "running"]),
        (["--status", "RUNNING"], ["running"]),
        (["--status", "PENDING", "--limit", "1"], ["pending"]),
        (["--status", "PENDING", "--status", "FAILED"], ["pending", "failed"]),
        (["--queue", "mail"], ["cancelled", "old"]),
        (["--queue", "mail", "--queue", "default", "--limit", "1"], ["pending"]),
        (["--task", "shop.*"], ["failed", "old"]),
        (["--task", "*.pay"], ["pending", "old"]),
        (["--task", "shop_*"], ["pending"]),
        (["--since", "90m"], ["pending", "running", "cancelled"]),
        (["--older-than", "90m"], ["failed", "old"]),
        (["--since", "1d", "--older-than", "90m"], ["failed"]),
        (["--error", "boom"], ["failed"]),
        (["--error", "50% OF"], ["failed"]),
        (["--error", "timeout"], ["failed"]),
        (["--error", "5_% of"], []),
        (["--status", "PENDING", "--error", "boom"], []),
    ],
)
@pytest.mark.parametrize("scanned", [1, 20_000])
def test_the_filters_find_the_runs_that_match_all_of_them(
    cli: CommandLine,
    database_url: str,
    runs: dict[str, int],
    filters: list[str],
    names: list[str],
    scanned: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if scanned != 1:
        assert found(cli, *filters) == [runs[name] for name in names]
        return
    # In batches of one run, and with more live runs than are read at once.
    monkeypatch.setattr(listed_runs, "SCANNED_RUNS", 1)
    monkeypatch.setattr(listed_runs, "LIVE_RUNS", 0)
    options: dict[str, list[str]] = {}
    for name, value in zip(filters[::2], filters[1::2], strict=True):
        options.setdefault(name, []).append(value)
    hours = {"90m": 5_400.0, "1d": 86_400.0}
    wanted = Wanted(
        frozenset(Status(each.upper()) for each in options.get("--status", ())),
        options.get("--queue"),
        options.get("--task", [None])[0],
        hours.get(options.get("--since", [""])[0]),
        hours.get(options.get("--older-than", [""])[0]),
        options.get("--error", [None])[0],
    )
    store = OperatorStore(database_url)
    listed = store.list_runs(wanted, int(options.get("--limit", ["20"])[0]))
    store.close()
    assert [run.id for run in listed] == [runs[name] for name in names]


def test_a_run_is_a_line_with_its_last_error(cli: CommandLine, runs: dict[str, int]) -> None:
    head, line = cli.output("list", "--status", "FAILED").splitlines()
    assert head.split() == ["run", "status", "queue", "task", "attempts", "enqueued", "last", "error"]
    assert line.split(maxsplit=6) == [
        str(runs["failed"]),
        "FAILED",
        "default",
        "shop.tasks.send",
        "2/3",
        "2h",
        "0m ago  timeout: Boom at",
    ]
    assert cli.output("list", "--queue", "nowhere") == "no runs match\n"


def test_as_json_each_run_is_an_object(cli: CommandLine, runs: dict[str, int]) -> None:
    (said,) = map(json.loads, cli.output("list", "--status", "FAILED", "--json").splitlines())
    assert said["last_error"] == {"kind": "timeout", "exception": None, "message": "Boom at\nline 2"}
    assert (said["status"], said["attempts"], said["max_attempts"]) == ("FAILED", 2, 3)
    assert said["enqueued_at"].startswith("20")
    assert cli.output("list", "--queue", "nowhere", "--json") == ""


def test_a_row_with_anything_in_it_is_listed(cli: CommandLine, connection: Connection) -> None:
    for errors in ("{}", '"text"', "[null]", "[[1]]", '[{"kind": 7, "message": {"a": 1}}]', '["\\u001b[2J"]'):
        add(connection, status="FAILED", errors=errors)
    with restoring(connection):
        connection.execute("alter table task_runs disable trigger all")
        connection.execute(
            "update task_runs set queue_name = E'\\x1b[2J' where id = (select min(id) from task_runs)"
        )
    text = cli.output("list", "--error", "e")
    assert "\x1b" not in cli.output("list")
    assert text.count("FAILED") >= 1
    assert len(found(cli)) == 6


def test_wrong_filters_are_a_usage_error(cli: CommandLine) -> None:
    for arguments in (["--since", "7"], ["--limit", "0"], ["--status", "READY"], ["7"]):
        cli.run("list", *arguments, status=ExitStatus.USAGE)


def test_the_newest_runs_of_a_large_table_are_found_without_reading_it(
    connection: Connection, database_url: str
) -> None:
    with restoring(connection):
        connection.execute(
            "insert into task_runs (payload, spec_hash, status, finished_at, enqueued_at) "
            "select '{}', repeat('ab', 32), case when n % 1000 = 0 then 'FAILED' else 'SUCCESSFUL' end, now(), "
            "now() - make_interval(secs => 60000 - n) from generate_series(1, 60000) n"
        )
    enqueue(connection, 1)
    connection.execute("analyze task_runs")
    store = OperatorStore(database_url)
    read: list[str] = []

    def fetch(name: str, parameters: Any) -> Any:
        read.append(name)
        return store._fetch(name, parameters)

    def names(wanted: Wanted, limit: int) -> list[str]:
        read.clear()
        assert len(listed_runs.list_runs(fetch, wanted, limit)) == limit
        return list(read)

    assert names(Wanted(), 20) == ["list_batch", "listed_runs"]
    assert names(Wanted(frozenset({Status.FAILED})), 20) == ["list_batch", "listed_runs"]
    assert names(Wanted(frozenset({Status.PENDING})), 1) == ["list_live", "listed_runs"]
    assert names(Wanted(frozenset({Status.FAILED}), since_s=5_000.0), 5)[-2:] == ["list_batch", "listed_runs"]
    began = time.monotonic()
    assert listed_runs.list_runs(fetch, Wanted(since_s=0.0), 5) == []
    assert time.monotonic() - began < 1
    store.close()
