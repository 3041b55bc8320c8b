"""Many runs are cancelled by one command, beside workers, and without a deadlock."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from reproq_prefork import NewRun, enqueue, enqueue_many
from reproq_prefork.errors import ExitStatus
from reproq_prefork.model.run import Status
from reproq_prefork.model.settlement import Settlement
from reproq_prefork.store import unfinished_runs
from reproq_prefork.store.operator_store import OperatorStore
from reproq_prefork.store.unfinished_runs import Selection
from tests.support.checkout import CHECKOUT
from tests.support.pages import code_blocks
from tests.support.rows.restores import statuses_of
from tests.support.rows.stores import worker_store
from tests.support.supervisor.command_line import CommandLine
from tests.support.supervisor.shop import Shop
from tests.support.supervisor.supervisor import (
    Connection,
    Supervisor,
    add_run,
    diary,
    run_row,
    wait_for_status,
)
from tests.support.waiting import wait_until

PENDING = frozenset({Status.PENDING})


@pytest.fixture
def cli(tmp_path: Path, database_url: str) -> CommandLine:
    return CommandLine(tmp_path, database_url)


def add_task(connection: Connection, path: str, **columns: Any) -> int:
    return add_run(connection, {"v": 1, "task": path, "args": [], "kwargs": {}}, **columns)


# --- which runs ---


def test_all_waiting_runs_are_cancelled_as_a_single_run_would_be(
    cli: CommandLine, connection: Connection
) -> None:
    one, *others = [add_task(connection, "shop.send") for _ in range(4)]
    plain = add_run(connection, {})
    later = enqueue(connection, 1, run_after=timedelta(days=1)).id
    cli.output("cancel", str(one))
    assert cli.output("cancel", "--status", "PENDING", "--yes") == "cancelled 5 runs\n"
    alone = run_row(connection, one)
    for run_id in (*others, plain, later):
        row = run_row(connection, run_id)
        assert row["status"] == "CANCELLED"
        assert row["cancel_requested_at"] == row["finished_at"] is not None
        assert [entry.keys() for entry in row["errors"]] == [alone["errors"][0].keys()]
        assert row["errors"][0]["message"] == alone["errors"][0]["message"] == "the task was cancelled"
        assert (row["finish_due_at"] is not None) == (row["task_path"] is not None)
    assert cli.output("cancel", "--status", "PENDING", "--yes") == "cancelled 0 runs\n"


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        ([], {"mail send", "mail a_b", "slow send", "old", "plain"}),
        (["--queue", "mail"], {"mail send", "mail a_b"}),
        (["--queue", "mail", "--queue", "slow"], {"mail send", "mail a_b", "slow send"}),
        (["--task", "shop.*"], {"mail send", "mail a_b", "slow send", "old"}),
        (["--task", "shop.tasks.send"], {"mail send", "slow send", "old"}),
        (["--task", "shop.tasks.sen?"], {"mail send", "slow send", "old"}),
        (["--task", "*.a_b"], {"mail a_b"}),
        (["--task", "*.aXb"], set()),
        (["--task", "shop%"], set()),
        (["--older-than", "2h"], {"old"}),
        (["--older-than", "2h", "--queue", "mail"], set()),
        (["--queue", "", "--task", "*"], set()),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_options_limit_which_runs_are_cancelled(
    words: list[str], chosen: set[str], cli: CommandLine, connection: Connection
) -> None:
    runs = {
        "mail send": add_task(connection, "shop.tasks.send", queue_name="mail"),
        "mail a_b": add_task(connection, "shop.tasks.a_b", queue_name="mail"),
        "slow send": add_task(connection, "shop.tasks.send", queue_name="slow"),
        "old": add_task(connection, "shop.tasks.send"),
        "plain": add_run(connection, {}),
    }
    connection.execute(
        "update task_runs set enqueued_at = now() - interval '3 h' where id = %s", [runs["old"]]
    )
    counted = cli.output("cancel", "--status", "PENDING", "--dry-run", *words)
    assert counted == f"would cancel {len(chosen)} run{'' if len(chosen) == 1 else 's'}\n"
    assert {run_row(connection, run_id)["status"] for run_id in runs.values()} == {"PENDING"}
    cli.output("cancel", "--status", "PENDING", "--yes", *words)
    ended = {name for name, run_id in runs.items() if run_row(connection, run_id)["status"] == "CANCELLED"}
    assert ended == chosen


def test_with_status_pending_only_waiting_runs_are_cancelled(
    cli: CommandLine, database_url: str, connection: Connection
) -> None:
    store = worker_store(database_url)
    done, held, waits = (enqueue(connection, number).id for number in range(3))
    (first,) = store.finish_and_claim([], max_runs=1).runs
    store.finish_and_claim([Settlement(first.id, first.claim, Status.SUCCESSFUL, "1")], max_runs=1)
    cli.output("cancel", "--status", "PENDING", "--yes")
    rows = [run_row(connection, run_id) for run_id in (done, held, waits)]
    assert [row["status"] for row in rows] == ["SUCCESSFUL", "RUNNING", "CANCELLED"]
    assert rows[1]["cancel_requested_at"] is None
    said = cli.output("cancel", "--status", "RUNNING", "--yes")
    assert said == "cancelled 0 runs\nasked the workers of 1 run to end them\n"
    assert run_row(connection, held)["cancel_requested_at"] is not None
    store.close()


def test_pages_and_batches_leave_nothing_out(
    database_url: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished_runs, "PAGE_RUNS", 7)
    monkeypatch.setattr(unfinished_runs, "BATCH_RUNS", 3)
    enqueue_many(connection, [NewRun.of(number) for number in range(20)])
    store = OperatorStore(database_url)
    batches = list(store.unfinished(Selection(PENDING)).cancel())
    store.close()
    assert [batch.cancelled for batch in batches] == [3, 3, 1, 3, 3, 1, 3, 3]
    assert statuses_of(database_url) == {"CANCELLED": 20}


# --- beside others ---


def test_a_locked_run_is_skipped_at_once(database_url: str, cli: CommandLine, connection: Connection) -> None:
    """A DELETE of all runs that waits for it while it locks others ends in a deadlock with a worker."""
    held, *others = [enqueue(connection, number).id for number in range(3)]
    with psycopg.connect(database_url) as holder:
        holder.execute("select from task_runs where id = %s for update", [held])
        said = cli.output("cancel", "--status", "PENDING", "--yes")
        assert said == "cancelled 2 runs\nskipped 1 run that others held or had started meanwhile\n"
        assert run_row(connection, held)["status"] == "PENDING"
    assert cli.output("cancel", "--status", "PENDING", "--yes") == "cancelled 1 run\n"
    assert statuses_of(database_url) == {"CANCELLED": 1 + len(others)}


def test_a_run_that_has_started_since_it_was_selected_is_left_alone(
    database_url: str, connection: Connection
) -> None:
    enqueue_many(connection, [NewRun.of(number) for number in range(2)])
    worker, store = worker_store(database_url), OperatorStore(database_url)

    def claim_meanwhile(name: str, parameters: Any) -> Any:
        if name == "cancel_batch":
            assert worker.finish_and_claim([], max_runs=1).runs
        return fetch(name, parameters)

    runs = store.unfinished(Selection(PENDING))
    fetch, runs._fetch = runs._fetch, claim_meanwhile
    (batch,) = runs.cancel()
    assert (batch.cancelled, batch.asked, batch.passed_by) == (1, 0, 1)
    assert statuses_of(database_url) == {"RUNNING": 1, "CANCELLED": 1}
    worker.close()
    store.close()


def test_waiters_for_an_end_are_notified(cli: CommandLine, database_url: str, connection: Connection) -> None:
    waited_for, other = (enqueue(connection, number).id for number in range(2))
    connection.execute(
        "insert into reproq_waiters (run_id, waiter, expires_at) values (%s, 'w', now() + interval '1 hour')",
        [waited_for],
    )
    connection.execute("listen reproq_finished")
    cli.output("cancel", "--status", "PENDING", "--yes")
    heard = [notify.payload for notify in connection.notifies(timeout=5, stop_after=1)]
    heard += [notify.payload for notify in connection.notifies(timeout=0)]
    assert heard == [str(waited_for)]
    assert run_row(connection, other)["status"] == "CANCELLED"


def test_tasks_that_run_are_ended_by_their_workers(
    cli: CommandLine, database_url: str, connection: Connection, tmp_path: Path
) -> None:
    pages = tmp_path / "diary"
    with Supervisor(database_url, tmp_path, environ={"POLL_INTERVAL": "30s"}):
        runs = [add_run(connection, {"sleep": 60, "diary": str(pages)}) for _ in range(5)]
        wait_until(lambda: len(list(diary(pages))) == 2, 20, "both workers to be busy")
        said = cli.output("cancel", "--status", "PENDING", "--status", "RUNNING", "--yes")
        assert said == "cancelled 3 runs\nasked the workers of 2 runs to end them\n"
        for run_id in runs:
            wait_for_status(connection, run_id, "CANCELLED")


def test_workers_go_on_during_a_bulk_cancel_without_a_deadlock(
    cli: CommandLine, database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """In production, one DELETE of all waiting runs met a deadlock within seconds."""
    shop = Shop(tmp_path)
    calls = NewRun.of({"v": 1, "task": f"{shop.name}.version", "args": [], "kwargs": {}})
    enqueue_many(connection, [calls] * 20_000)
    with shop.supervisor(database_url, executor="inline") as supervisor:
        wait_until(lambda: statuses_of(database_url).get("SUCCESSFUL"), 20, "the workers to be at work")
        said = cli.output("cancel", "--status", "PENDING", "--yes")
        wait_until(
            lambda: statuses_of(database_url).keys() == {"SUCCESSFUL", "CANCELLED"}, 20, "all to have ended"
        )
        wait_for_status(connection, add_task(connection, f"{shop.name}.version"), "SUCCESSFUL")
        assert "deadlock" not in supervisor.log()
        assert "WARN" not in supervisor.log()
    ends = Counter(statuses_of(database_url))
    assert ends.total() == 20_001
    assert said.startswith(f"cancelled {ends['CANCELLED']:,} runs\n")


def test_the_statement_of_the_docs_does_not_wait_for_a_worker(
    database_url: str, connection: Connection
) -> None:
    page = (CHECKOUT / "docs" / "operations.md").read_text(encoding="utf-8")
    (text,) = code_blocks(page, "sql")
    held, *others = [enqueue(connection, number, queue_name="mail").id for number in range(1200)]
    with psycopg.connect(database_url) as holder:
        holder.execute("select from task_runs where id = %s for update", [held])
        connection.execute("set lock_timeout = '1ms'")
        deleted = [connection.execute(text).rowcount for _ in range(3)]
    assert (deleted, len(others)) == ([1000, 199, 0], 1199)
    assert statuses_of(database_url) == {"PENDING": 1}


# --- what is asked ---


def test_a_bulk_cancel_asks_first_and_does_nothing_without_a_terminal(
    cli: CommandLine, connection: Connection
) -> None:
    run_id = enqueue(connection, 1).id
    said = cli.run("cancel", "--status", "PENDING", status=ExitStatus.USAGE).stderr
    assert "Cancel 1 run? Nobody can answer here: give --yes." in said
    assert run_row(connection, run_id)["status"] == "PENDING"


@pytest.mark.parametrize(
    ("answer", "status", "left"), [("y", 0, "CANCELLED"), ("n", 1, "PENDING"), ("", 1, "PENDING")]
)
def test_on_a_terminal_the_answer_counts(
    cli: CommandLine, connection: Connection, answer: str, status: int, left: str
) -> None:
    run_id = enqueue(connection, 1).id
    ours, theirs = pty.openpty()
    os.write(ours, f"{answer}\n".encode())
    done = subprocess.run(
        [sys.executable, "-m", "reproq_prefork", "cancel", "--status", "PENDING"],
        stdin=theirs,
        capture_output=True,
        text=True,
        cwd=cli.directory,
        env=cli.environ,
        timeout=30,
    )
    os.close(ours)
    os.close(theirs)
    assert done.returncode == status
    assert "Cancel 1 run? [y/N]" in done.stderr
    assert ("Nothing was changed." in done.stderr) == (status != 0)
    assert run_row(connection, run_id)["status"] == left


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Which run? Give an id"),
        (["--queue", "mail"], "Which run? Give an id"),
        (["7", "--status", "PENDING"], "An id cannot be used with the other options"),
        (["7", "--queue", "mail"], "An id cannot be used with the other options"),
        (["7", "--dry-run"], "An id cannot be used with the other options"),
        (["--status", "FAILED"], "'FAILED' is not one of"),
        (
            ["--status", "PENDING", "--older-than", "7"],
            "7 has no unit; write 7d (days), 7h (hours), 7m (minutes) or 7s (seconds)",
        ),
        (["--status", "PENDING", "--older-than", "soon"], "is not a duration"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistyped_option_cancels_nothing(
    words: list[str], said: str, cli: CommandLine, connection: Connection
) -> None:
    run_id = enqueue(connection, 1).id
    assert said in cli.run("cancel", *words, "--yes", status=ExitStatus.USAGE).stderr.replace('"', "")
    assert run_row(connection, run_id)["status"] == "PENDING"
