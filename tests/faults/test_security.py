"""The security section of the fault list: what a stranger on the host, or one with INSERT, can see and do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from reproq_prefork import NewRun, Spec, enqueue, enqueue_many, get_run
from reproq_prefork.cli import entry
from reproq_prefork.errors import ReproqError
from tests.support.checkout import CHECKOUT
from tests.support.postgres.databases import PASSWORD, as_login
from tests.support.supervisor.command_line import CommandLine
from tests.support.supervisor.supervisor import (
    Connection,
    Supervisor,
    add_run,
    run_row,
    wait_for_start,
    wait_for_status,
)
from tests.support.waiting import wait_until

MARK = "a-word-of-the-payload"


def _of_processes(what: str) -> Iterator[tuple[int, str]]:
    """`cmdline` or `environ` of every process that can be read, as `ps` shows them."""
    for pid in psutil.pids():
        try:
            yield pid, Path(f"/proc/{pid}/{what}").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue


def _with(text: str, what: str) -> list[int]:
    return [pid for pid, shown in _of_processes(what) if text in shown]


def test_in_stdin_mode_no_command_line_or_environment_holds_a_payload(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    mark = f"{MARK}-{tmp_path.name}"
    with Supervisor(database_url, tmp_path, workers=1, environ={"PAYLOAD_MODE": "stdin"}):
        run_id = add_run(
            connection, {"mark": mark, "wait_for": str(tmp_path / "go"), "diary": str(tmp_path / "d")}
        )
        wait_until((tmp_path / "d").exists, 10, "the task to start")
        assert _with(mark, "cmdline") == []
        assert _with(mark, "environ") == []
        (tmp_path / "go").touch()
        wait_for_status(connection, run_id, "SUCCESSFUL")


def test_with_an_allow_list_the_environment_of_a_task_holds_no_database_address(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    with Supervisor(database_url, tmp_path, workers=1, environ={"REPROQ_TASK_ENV": "PATH"}) as supervisor:
        run_id = add_run(connection, {"wait_for": str(tmp_path / "go"), "diary": str(tmp_path / "d")})
        wait_for_start(tmp_path / "d")
        pid = int((tmp_path / "d").read_text().split()[3])
        assert pid in {process.pid for process in supervisor.family()}
        environ = Path(f"/proc/{pid}/environ").read_text()
        assert "REPROQ_TASK_ID" in environ
        assert PASSWORD not in environ
        assert "postgresql://" not in environ
        (tmp_path / "go").touch()
        wait_for_status(connection, run_id, "SUCCESSFUL")


def test_titles_logs_and_output_of_commands_hold_no_password(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    with Supervisor(database_url, tmp_path, workers=1) as supervisor:
        wait_for_status(connection, add_run(connection, {"exit": 1}, max_attempts=1), "FAILED")
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        )
        wait_for_status(connection, add_run(connection, {}), "SUCCESSFUL")
        assert not any(PASSWORD in title for title in supervisor.titles())
        assert supervisor.stop() == 0
        assert PASSWORD not in supervisor.log()
    cli = CommandLine(tmp_path, as_login(database_url, "worker"))
    for command in (("config",), ("check", "--command", "true"), ("status",), ("--help",), ("show", "1")):
        done = cli.run(*command)
        assert PASSWORD not in done.stdout + done.stderr, command


HOSTILE = (
    "'; drop table task_runs; --",
    '"; drop table task_runs; --',
    "%s %(name)s {} {0} $1",
    "\\'; select 1",
    "a\nb\r\x1b[31mred\x07",
    "\N{RIGHT-TO-LEFT OVERRIDE}txt.exe",
    "../../etc/passwd",
    "\ud800",
    "nul\0nul",
    "x" * 3_000,
)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_strings_are_values_or_are_refused_and_never_sql(
    database_url: str, connection: Connection, text: str
) -> None:
    before = connection.execute("select count(*) from pg_class").fetchone()
    sentences: list[str] = []
    with psycopg.connect(as_login(database_url, "producer"), autocommit=True) as producer:
        for place in ("queue_name", "unique_key", "payload"):
            payload = {"text": text} if place == "payload" else {}
            options = {} if place == "payload" else {place: text}
            for add in (_one, _many):
                try:
                    run_id = add(producer, payload, options)
                except ReproqError as refused:
                    sentences.append(str(refused))
                    continue
                row = run_row(connection, run_id)
                assert row[place] == (payload if place == "payload" else text)
                assert get_run(producer, run_id).id == run_id
                connection.execute("delete from task_runs where id = %s", [run_id])
    assert connection.execute("select count(*) from pg_class").fetchone() == before
    assert all(map(str.isprintable, sentences)), sentences


def _one(producer: Connection, payload: dict[str, str], options: dict[str, str]) -> int:
    return enqueue(producer, payload, **options).id  # type: ignore[arg-type]


def _many(producer: Connection, payload: dict[str, str], options: dict[str, str]) -> int:
    return enqueue_many(producer, [NewRun.of(payload, **options)])[0].id  # type: ignore[arg-type]


@pytest.mark.parametrize("text", [text for text in HOSTILE if "\0" not in text and "\ud800" not in text])
def test_hostile_strings_on_the_command_line_draw_nothing_on_the_terminal(
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    text: str,
) -> None:
    monkeypatch.chdir(tmp_path)  # no .env of somebody's
    environ = {"DATABASE_URL": as_login(database_url, "producer")}
    for arguments in (
        ("--requeue-hash", text),
        ("--requeue-id", text),
        ("show", text),
        ("enqueue", "{}", "--queue", text),
        ("enqueue", text),
    ):
        entry.run(arguments, environ)
        done = capsys.readouterr()
        assert done.out + done.err
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f\x9b]|\N{RIGHT-TO-LEFT OVERRIDE}", done.out + done.err)


def test_a_log_event_is_one_line_whatever_a_task_prints(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    forged = "real\n2026-01-01T00:00:00.000Z INFO  master: forged\x1b[2K"
    with Supervisor(database_url, tmp_path, workers=1) as supervisor:
        run_id = add_run(connection, {"exit": 1, "stderr": f'{{"message": {forged!r}}}'}, max_attempts=1)
        run_id = add_run(connection, {"exit": 1, "stderr": forged}, max_attempts=1)
        wait_for_status(connection, run_id, "FAILED")
        assert supervisor.stop() == 0
        assert "\x1b" not in supervisor.log()
        assert not any(
            "master: forged" in line and "run" not in line for line in supervisor.log().splitlines()
        )


@pytest.mark.parametrize(
    "path",
    ["os.system", "tests.support.supervisor.shop.__builtins__", "subprocess.run", "builtins.eval", "..x", ""],
)
def test_a_payload_cannot_run_code_outside_the_allow_list(
    database_url: str, connection: Connection, tmp_path: Path, path: str
) -> None:
    """The right to INSERT is not enough to run arbitrary code."""
    touched = tmp_path / "touched"
    environ = {
        "EXECUTOR_COMMAND": "",
        "ALLOWED_TASK_MODULES": "tests.chaos.bodies",
        "PYTHONPATH": str(CHECKOUT),
    }
    spec = Spec.of({"v": 1, "task": path, "args": [f"touch {touched}"], "kwargs": {}})
    with Supervisor(database_url, tmp_path, workers=1, environ=environ):
        with psycopg.connect(as_login(database_url, "producer"), autocommit=True) as producer:
            run = enqueue(producer, spec)
        row = wait_for_status(connection, run.id, "FAILED")
    assert row["errors"][0]["kind"] == "not_allowed"
    assert not touched.exists()
