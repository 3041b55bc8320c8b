"""Commands whose output cannot be written: the exit status says whether something was committed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest

from reproq_prefork import Status, enqueue, get_run
from reproq_prefork.errors import ExitStatus
from reproq_prefork.store.migration_files import known_migrations
from tests.support.supervisor.command_line import TIMEOUT_S, CommandLine

Connection = psycopg.Connection[Any]

FULL = '"$@" > /dev/full'
CLOSED = '"$@" >&-'
BOTH_FULL = '"$@" > /dev/full 2>&1'


@pytest.fixture
def cli(tmp_path: Path, database_url: str) -> CommandLine:
    return CommandLine(tmp_path, database_url)


def run(cli: CommandLine, shell: str, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["sh", "-c", shell, "sh", sys.executable, "-m", "reproq_prefork", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        cwd=cli.directory,
        env=cli.environ,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert "Exception ignored" not in done.stderr, done.stderr
    return done


def reader_gone(cli: CommandLine, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Nobody reads its output from the start."""
    process = cli.start(*arguments)
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    with process:
        _, errors = process.communicate(timeout=TIMEOUT_S)
    return subprocess.CompletedProcess(arguments, process.returncode, "", errors)


def only_run(connection: Connection) -> Any:
    ((run_id,),) = connection.execute("select max(id) from task_runs").fetchall()
    return get_run(connection, run_id)


@pytest.mark.parametrize("shell", [FULL, CLOSED])
def test_an_enqueue_that_cannot_print_says_that_it_is_committed(
    cli: CommandLine, connection: Connection, shell: str
) -> None:
    done = run(cli, shell, ["enqueue", "{}"])
    assert done.returncode == ExitStatus.NOT_PRINTED
    assert len(done.stderr.splitlines()) == 1
    assert f"so do not do it again: run {only_run(connection).id} was added." in done.stderr


def test_an_enqueue_whose_output_nobody_reads_says_that_it_is_committed(
    cli: CommandLine, connection: Connection
) -> None:
    done = reader_gone(cli, ["enqueue", "{}"])
    assert done.returncode == ExitStatus.NOT_PRINTED
    assert f"run {only_run(connection).id} was added" in done.stderr


def test_the_exit_status_is_right_where_nothing_can_be_printed_at_all(
    cli: CommandLine, connection: Connection
) -> None:
    assert run(cli, BOTH_FULL, ["enqueue", "{}"]).returncode == ExitStatus.NOT_PRINTED
    assert run(cli, BOTH_FULL, ["enqueue", "{"]).returncode == ExitStatus.USAGE
    assert run(cli, BOTH_FULL, ["show", "99"]).returncode == ExitStatus.NOT_FOUND


def cancelled(connection: Connection, run_id: int) -> bool:
    return get_run(connection, run_id).status is Status.CANCELLED


def copied(connection: Connection, run_id: int) -> bool:
    return bool(only_run(connection).replay_of == run_id)


@pytest.mark.parametrize(
    ("arguments", "is_done", "said"),
    [
        (["--requeue-id", "ID"], copied, "run "),
        (["cancel", "ID"], cancelled, "run ID is CANCELLED"),
        (["cancel", "--status", "PENDING", "--yes"], cancelled, "cancelled 1 run"),
    ],
    ids=["requeue", "cancel", "bulk-cancel"],
)
def test_a_change_to_a_run_that_cannot_be_printed_is_reported_as_done(
    cli: CommandLine,
    connection: Connection,
    arguments: list[str],
    is_done: Callable[[Connection, int], bool],
    said: str,
) -> None:
    run_id = enqueue(connection, 1).id
    done = run(cli, FULL, [word.replace("ID", str(run_id)) for word in arguments])
    assert done.returncode == ExitStatus.NOT_PRINTED
    assert said.replace("ID", str(run_id)) in done.stderr
    assert is_done(connection, run_id)


def test_a_prune_that_cannot_print_says_how_many_it_has_deleted(
    cli: CommandLine, connection: Connection
) -> None:
    enqueue(connection, 1)
    connection.execute("update task_runs set status = 'FAILED', finished_at = now() - interval '9 days'")
    done = run(cli, FULL, ["prune", "--older-than", "1d"])
    assert done.returncode == ExitStatus.NOT_PRINTED
    assert "deleted 1 run." in done.stderr


def test_an_adoption_goes_to_its_end_without_any_output(cli: CommandLine, connection: Connection) -> None:
    run_id = enqueue(connection, 1).id
    done = run(cli, FULL, ["adopt", "--cancel-unfinished", "--yes"])
    assert done.returncode == ExitStatus.NOT_PRINTED
    assert "cancelled 1 run; adopted: masters may start here." in done.stderr
    assert cancelled(connection, run_id)


def test_a_migration_goes_to_its_end_without_any_output(tmp_path: Path, empty_database_url: str) -> None:
    cli = CommandLine(tmp_path, empty_database_url)
    done = run(cli, FULL, ["migrate"])
    assert done.returncode == ExitStatus.NOT_PRINTED
    for migration in known_migrations():
        assert f"applied {migration.label}" in done.stderr
    assert cli.output("migrate").startswith("nothing to do")


@pytest.mark.parametrize(
    "arguments", [["status"], ["config"], ["--help"], ["prune", "--older-than", "1d", "--dry-run"]]
)
def test_a_command_that_changes_nothing_ends_with_1(cli: CommandLine, arguments: list[str]) -> None:
    done = run(cli, FULL, arguments)
    assert done.returncode == ExitStatus.FAILURE
    assert done.stderr == "reproq-prefork: Standard output cannot be written: No space left on device.\n"


def test_nothing_is_called_committed_if_the_key_was_held(cli: CommandLine, connection: Connection) -> None:
    enqueue(connection, 1, unique_key="k")
    assert run(cli, FULL, ["enqueue", "1", "--unique", "k"]).returncode == ExitStatus.FAILURE
