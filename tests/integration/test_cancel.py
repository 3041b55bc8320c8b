"""Cancelling as a user does it, with a real master and its children."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import psutil
import psycopg
import pytest

from reproq_prefork import Status, cancel, enqueue
from reproq_prefork.errors import ExitStatus
from tests.support.supervisor.command_line import CommandLine
from tests.support.supervisor.supervisor import (
    Connection,
    Supervisor,
    add_run,
    diary,
    run_row,
    wait_for_status,
)
from tests.support.waiting import wait_until

# Promised is half a second on an idle machine; the tests share theirs with others.
WITHIN_S = 2.0
LONG_POLL = {"POLL_INTERVAL": "30s"}  # what is seen sooner was announced


@pytest.fixture
def cli(tmp_path: Path, database_url: str) -> CommandLine:
    return CommandLine(tmp_path, database_url)


def wait_for_start(pages: Path, run_id: int) -> int:
    """The pid of the task, once its own code runs."""

    def started() -> int | None:
        return next((pid for what, of, _, pid, _ in diary(pages) if (what, of) == ("start", run_id)), None)

    pid = wait_until(started, 20, f"the task of run {run_id} to start")
    assert pid is not None
    return pid


def wait_until_it_looks_rarely(connection: Connection, pages: Path) -> None:
    """A steward looks ever more rarely, twice as long after each time: others show when it has last done so."""
    unseen_s = 0.0
    while unseen_s < WITHIN_S:
        marked = add_run(connection, {"sleep": 60, "diary": str(pages)})
        wait_for_start(pages, marked)
        began = time.monotonic()
        connection.execute("update task_runs set cancel_requested_at = now() where id = %s", [marked])
        wait_for_status(connection, marked, "CANCELLED")
        unseen_s = time.monotonic() - began


def test_a_run_that_waits_is_cancelled_and_never_starts(
    cli: CommandLine, database_url: str, connection: Connection, tmp_path: Path
) -> None:
    pages = tmp_path / "diary"
    cancelled, after = (add_run(connection, {"diary": str(pages)}) for _ in range(2))
    assert cli.output("cancel", str(cancelled)) == f"run {cancelled} is CANCELLED\n"
    with Supervisor(database_url, tmp_path, workers=1):
        wait_for_status(connection, after, "SUCCESSFUL")
    assert run_row(connection, cancelled)["status"] == "CANCELLED"
    assert {run_id for _, run_id, *_ in diary(pages)} == {after}


def test_a_running_run_is_ended_within_the_bound(
    cli: CommandLine, database_url: str, connection: Connection, tmp_path: Path
) -> None:
    pages = tmp_path / "diary"
    with Supervisor(database_url, tmp_path, environ=LONG_POLL) as supervisor:
        run_id = add_run(connection, {"sleep": 60, "diary": str(pages)})
        task = wait_for_start(pages, run_id)
        wait_until_it_looks_rarely(connection, pages)
        said = cli.output("cancel", str(run_id))
        committed = time.monotonic()
        assert said.startswith(f"run {run_id} is RUNNING; its worker was asked to end it: ")
        run = wait_for_status(connection, run_id, "CANCELLED", timeout_s=WITHIN_S)
        print(f"ended {time.monotonic() - committed:.3f} s after the cancel")
        assert not psutil.pid_exists(task)
        workers = supervisor.worker_pids()
        next_run = add_run(connection, {})
        wait_for_status(connection, next_run, "SUCCESSFUL")
        assert supervisor.worker_pids() == workers, "no worker had to die for it"
    assert run["attempts"] == 1
    (entry,) = run["errors"]
    assert (entry["kind"], entry["message"], entry["attempt"]) == ("cancelled", "the task was cancelled", 1)
    assert entry["exit"] == "killed by signal 15 (SIGTERM)"
    assert run["result"] is None
    assert run["finished_at"] >= run["cancel_requested_at"] >= run["started_at"]


def test_a_cancel_that_is_notified_does_not_wait_for_the_steward_to_poll(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    pages = tmp_path / "diary"
    with Supervisor(database_url, tmp_path, environ=LONG_POLL):
        announced = add_run(connection, {"sleep": 60, "diary": str(pages)})
        wait_for_start(pages, announced)
        wait_until_it_looks_rarely(connection, pages)
        cancel(connection, announced)
        wait_for_status(connection, announced, "CANCELLED", timeout_s=WITHIN_S)


def test_only_the_run_that_is_cancelled_ends(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    pages, go = tmp_path / "diary", tmp_path / "go"
    with Supervisor(database_url, tmp_path, workers=2):
        kept, cancelled = (add_run(connection, {"wait_for": str(go), "diary": str(pages)}) for _ in range(2))
        for run_id in (kept, cancelled):
            wait_for_start(pages, run_id)
        cancel(connection, cancelled)
        wait_for_status(connection, cancelled, "CANCELLED")
        assert run_row(connection, kept)["status"] == "RUNNING"
        go.touch()
        wait_for_status(connection, kept, "SUCCESSFUL")


def test_a_task_that_ignores_term_is_killed_after_the_grace(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    pages = tmp_path / "diary"
    with Supervisor(database_url, tmp_path) as supervisor:
        run_id = add_run(connection, {"sleep": 60, "ignore_term": True, "diary": str(pages)})
        task = wait_for_start(pages, run_id)
        workers = supervisor.worker_pids()
        cancel(connection, run_id)
        run = wait_for_status(connection, run_id, "CANCELLED")
        assert supervisor.worker_pids() == workers
        assert not psutil.pid_exists(task)
    assert 4.5 < (run["finished_at"] - run["cancel_requested_at"]).total_seconds() < 9
    assert [entry["exit"] for entry in run["errors"]] == ["killed by signal 9 (SIGKILL)"]


def test_a_result_after_the_signal_to_end_does_not_count(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """It goes on after TERM, and then succeeds within the grace."""
    pages, go = tmp_path / "diary", tmp_path / "go"
    with Supervisor(database_url, tmp_path):
        run_id = add_run(connection, {"wait_for": str(go), "note_term": True, "diary": str(pages)})
        wait_for_start(pages, run_id)
        cancel(connection, run_id)
        wait_until(lambda: any(what == "term" for what, *_ in diary(pages)), WITHIN_S, "it to be told")
        go.touch()
        run = wait_for_status(connection, run_id, "CANCELLED")
    assert [what for what, *_ in diary(pages)] == ["start", "term", "end"]
    assert run["result"] is None


def test_a_worker_that_dies_while_it_cancels_leaves_the_run_cancelled(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    pages = tmp_path / "diary"
    with Supervisor(database_url, tmp_path, workers=1) as supervisor:
        run_id = add_run(connection, {"sleep": 60, "note_term": True, "diary": str(pages)})
        task = wait_for_start(pages, run_id)
        cancel(connection, run_id)
        wait_until(lambda: any(what == "term" for what, *_ in diary(pages)), WITHIN_S, "it to be told")
        os.kill(supervisor.worker_pids()[0], signal.SIGKILL)
        run = wait_for_status(connection, run_id, "CANCELLED", timeout_s=4)
        assert not psutil.pid_exists(task)
        wait_for_status(connection, add_run(connection, {}), "SUCCESSFUL")
    assert [entry["kind"] for entry in run["errors"]] == ["worker_lost"]
    assert [what for what, *_ in diary(pages)] == ["start", "term"]


def test_quit_ends_the_grace_early_and_the_run_is_still_cancelled(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    pages = tmp_path / "diary"
    with Supervisor(database_url, tmp_path, workers=1) as supervisor:
        run_id = add_run(connection, {"sleep": 60, "note_term": True, "diary": str(pages)})
        wait_for_start(pages, run_id)
        cancel(connection, run_id)
        wait_until(lambda: any(what == "term" for what, *_ in diary(pages)), WITHIN_S, "it to be told")
        started = time.monotonic()
        assert supervisor.stop(signal.SIGQUIT) == 0
        assert time.monotonic() - started < 4, "it did not wait for the grace"
    assert run_row(connection, run_id)["status"] == "CANCELLED"


def test_a_run_that_has_finished_cannot_be_cancelled(cli: CommandLine, connection: Connection) -> None:
    run = enqueue(connection, 1)
    connection.execute("update task_runs set status = 'SUCCESSFUL', finished_at = now()")
    done = cli.run("cancel", str(run.id), status=ExitStatus.CONFLICT)
    assert done.stdout == ""
    assert done.stderr == (
        f"reproq-prefork: Run {run.id} has already finished and is SUCCESSFUL: there is nothing to cancel.\n"
    )


def test_a_second_cancel_does_no_harm_and_a_missing_run_is_not_found(
    cli: CommandLine, connection: Connection
) -> None:
    run_id = str(enqueue(connection, 1).id)
    assert cli.output("cancel", run_id) == cli.output("cancel", run_id) == f"run {run_id} is CANCELLED\n"
    assert "No task run has the id 777" in cli.run("cancel", "777", status=ExitStatus.NOT_FOUND).stderr
    cli.run("cancel", "seven", status=ExitStatus.USAGE)


def test_a_steward_that_gets_no_notification_finds_a_cancel_at_the_next_poll(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    pages = tmp_path / "diary"
    with Supervisor(database_url, tmp_path, environ={"POLL_INTERVAL": "300ms"}):
        run_id = add_run(connection, {"sleep": 60, "diary": str(pages)})
        wait_for_start(pages, run_id)
        # Any program may cancel by plain SQL, and announce nothing.
        connection.execute("update task_runs set cancel_requested_at = now() where id = %s", [run_id])
        wait_for_status(connection, run_id, "CANCELLED", timeout_s=WITHIN_S)


def test_a_cancel_while_the_steward_is_dead_reaches_the_task_through_the_next_steward(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    pages = tmp_path / "diary"
    with Supervisor(database_url, tmp_path, environ=LONG_POLL) as supervisor:
        run_id = add_run(connection, {"sleep": 60, "diary": str(pages)})
        wait_for_start(pages, run_id)
        os.kill(supervisor.steward_pid(), signal.SIGKILL)
        cancel(connection, run_id)
        wait_for_status(connection, run_id, "CANCELLED")


@pytest.mark.timeout(120)
def test_runs_cancelled_at_any_moment_end_cancelled_or_as_they_would_have(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """Cancels race with claims, starts, ends and retries of 80 short tasks."""
    pages = tmp_path / "diary"
    with Supervisor(database_url, tmp_path, workers=3) as supervisor:
        runs = [
            add_run(connection, {"sleep": 0.02, "exit": 1, "fail_attempts": 1, "diary": str(pages)})
            for _ in range(80)
        ]

        def cancel_every_other(half: list[int]) -> None:
            with psycopg.connect(database_url, autocommit=True) as caller:
                for run_id in half:
                    assert cancel(caller, run_id).status in Status
                    time.sleep(0.01)

        halves = runs[0:40:2], runs[40:80:2]
        threads = [threading.Thread(target=cancel_every_other, args=(half,)) for half in halves]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rows = [
            wait_for_status(connection, run_id, "SUCCESSFUL", "CANCELLED", timeout_s=60) for run_id in runs
        ]
        assert "Traceback" not in supervisor.log()
    for row in rows:
        if row["cancel_requested_at"] is None:
            assert row["status"] == "SUCCESSFUL"
        if row["status"] == "CANCELLED":
            assert row["cancel_requested_at"] is not None
            assert row["leased_by"] is None
            assert row["errors"][-1]["kind"] in ("cancelled", "failed", "worker_lost")
        starts = sum(what == "start" and run_id == row["id"] for what, run_id, *_ in diary(pages))
        assert starts <= row["claims"]
