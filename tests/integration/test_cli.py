"""The program itself: settings from five places, exit statuses, and sentences instead of tracebacks."""

from __future__ import annotations

import json
import platform
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import conninfo

from reproq_prefork import Status, __version__, enqueue, get_run
from reproq_prefork.errors import ExitStatus
from reproq_prefork.settings.options import OPTIONS, Group
from tests.support.supervisor.command_line import CommandLine
from tests.support.waiting import wait_until

Connection = psycopg.Connection[Any]
NOBODYS_HASH = "ab" * 32


@pytest.fixture
def cli(tmp_path: Path, database_url: str) -> CommandLine:
    return CommandLine(tmp_path, database_url)


@pytest.fixture
def offline(tmp_path: Path) -> CommandLine:
    """Without a database."""
    return CommandLine(tmp_path, None)


def write_private(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)


# --- help ---


def test_the_help_names_every_option_variable_command_and_exit_status(offline: CommandLine) -> None:
    text = offline.output("--help")
    for option in OPTIONS:
        assert option.long_flag in text
        assert option.env in text
    for status in ExitStatus:
        assert f"  {status.value}  {status.description}" in text
    commands = re.search(r"Commands:\n(.*?)\n\n", text, re.DOTALL)
    assert commands
    for line in commands[1].splitlines():
        name = line.split()[0]
        assert "Usage: reproq-prefork " + name in offline.output(name, "--help")


def test_every_option_is_in_one_group_of_the_help(offline: CommandLine) -> None:
    text = offline.output("--help")
    headings = [text.index(f"\n{group.value}:\n") for group in Group]
    assert headings == sorted(headings)
    sections = dict(zip(Group, pairwise([*headings, text.index("\n  Examples:\n")]), strict=True))
    for option in OPTIONS:
        listed = re.compile(rf"^  .*{option.long_flag}(?![\w-])", re.MULTILINE)
        begin, end = sections[option.group]
        assert [match.start() for match in listed.finditer(text) if begin < match.start() < end], option.name


def test_all_versions_are_printed_or_only_our_own(offline: CommandLine) -> None:
    assert offline.output("-V") == f"reproq-prefork {__version__}\n"
    lines = offline.output("--version").splitlines()
    names = [line.partition(" ")[0] for line in lines]
    assert names[:4] == ["reproq-prefork", "Python", "psycopg", "libpq"]
    assert names[-1] == "platform"
    assert lines[0] == f"reproq-prefork {__version__}"
    assert platform.python_version() in lines[1]
    assert re.fullmatch(r"psycopg 3\.[\d.]+ \((binary|c|python)\)", lines[2])
    assert re.fullmatch(r"libpq \d\d\.\d+", lines[3])
    assert ("Django" in names) == (find_spec("django") is not None)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shells_can_complete_commands_and_options(offline: CommandLine, shell: str) -> None:
    source = offline.run(environ={"_REPROQ_PREFORK_COMPLETE": f"{shell}_source"}, status=0).stdout
    assert "reproq-prefork" in source
    words = {"COMP_WORDS": "reproq-prefork pru", "COMP_CWORD": "1"}
    if shell != "fish":
        completed = offline.run(
            environ={"_REPROQ_PREFORK_COMPLETE": f"{shell}_complete", **words}, status=0
        ).stdout
        assert "prune" in completed


def test_the_installed_command_is_the_same_program() -> None:
    program = Path(sys.executable).parent / "reproq-prefork"
    if not program.exists():
        pytest.skip("the package is not installed beside this Python")
    told = subprocess.run([program, "-V"], capture_output=True, text=True, check=True, timeout=20)
    assert told.stdout == f"reproq-prefork {__version__}\n"


# --- settings ---


def test_each_source_takes_precedence_over_the_next(offline: CommandLine) -> None:
    def workers(*flags: str) -> tuple[str, str]:
        value = json.loads(offline.output("config", "--json", *flags))["workers"]
        return value["value"], value["source"]

    assert workers()[1] == "default"
    write_private(offline.directory / "reproq.toml", "workers = 4\n")
    assert workers() == ("4", "reproq.toml")
    write_private(offline.directory / ".env", "REPROQ_WORKERS=3\n")
    assert workers() == ("3", ".env")
    offline.environ["REPROQ_WORKERS"] = "2"
    assert workers() == ("2", "environment REPROQ_WORKERS")
    assert workers("-w", "1") == ("1", "flag --workers")


def test_a_flag_works_before_the_command_and_after_it(offline: CommandLine) -> None:
    url = "postgresql://app@db/app"
    after = offline.output("config", "--database-url", url, "--queue", "a", "--queue", "b,c")
    before = offline.output("--database-url", url, "--queue", "a", "--queue", "b,c", "config")
    assert re.sub(r"T\d{6}", "", before) == re.sub(r"T\d{6}", "", after)
    assert re.search(r"^queue +a,b,c +flag --queue$", before, re.MULTILINE)
    both = offline.output("--queue", "a", "config", "--queue", "b")
    assert re.search(r"^queue +b +flag --queue$", both, re.MULTILINE)


def test_a_flag_that_would_have_no_effect_is_refused(offline: CommandLine) -> None:
    refused = offline.run("--queue", "mail", "enqueue", "1", status=2)
    assert "--queue before `enqueue` would have no effect" in refused.stderr


def test_config_masks_passwords(offline: CommandLine) -> None:
    offline.environ["DATABASE_URL"] = "postgresql://app:s3cret@db/app?sslpassword=s3cret"
    for arguments in ((), ("--json",)):
        text = offline.output("config", *arguments)
        assert "s3cret" not in text
        assert "postgresql://app:***@db/app" in text


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://u:top@s3cretpart@127.0.0.1/x",
        "postgresql://u:12/s3cretpart@127.0.0.1/x",
        "postgresql://u:12?s3cretpart@127.0.0.1/x",
        "postgresql://u:s3cretpart",
        "dbname=postgresql://u:s3cretpart@127.0.0.1/x",
    ],
)
def test_an_address_that_can_be_read_in_two_ways_is_refused_and_not_printed(
    offline: CommandLine, address: str
) -> None:
    for arguments in (("config",), ("check",), ("status",), ("enqueue", "1"), ("--command", "true")):
        for given, environ in ((("--database-url", address), {}), ((), {"DATABASE_URL": address})):
            told = offline.run(*arguments, *given, environ=environ, status=ExitStatus.USAGE)
            assert "nobody can tell where the password in this address ends" in told.stdout + told.stderr
            assert "s3cretpart" not in told.stdout + told.stderr
    misplaced = offline.run(address, status=ExitStatus.USAGE)
    assert "s3cretpart" not in misplaced.stdout + misplaced.stderr


def test_config_shows_where_the_files_are_and_warns_of_open_ones(offline: CommandLine) -> None:
    elsewhere = offline.directory / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / ".env").write_text("QUEUE_NAME=mail\n", encoding="utf-8")
    (elsewhere / ".env").chmod(0o644)
    shown = offline.run("config", "--chdir", "elsewhere", status=0)
    assert re.search(r"^queue +mail +\.env$", shown.stdout, re.MULTILINE)
    assert str(elsewhere / ".env") in shown.stdout
    assert shown.stderr.startswith("reproq-prefork: warning: .env can be read by other users")


def test_all_wrong_settings_are_reported_at_once(offline: CommandLine) -> None:
    offline.environ |= {"REPROQ_WORKERS": "many", "REPROQ_LEASE": "soon"}
    for arguments in (("config",), ("status",), ()):
        told = offline.run(*arguments, status=ExitStatus.USAGE).stderr.splitlines()
        assert len(told) == 2
        assert all(line.startswith("reproq-prefork: REPROQ_") for line in told)


# --- exit statuses ---


@pytest.mark.parametrize(
    "arguments", [(), ("status",), ("migrate",), ("enqueue", "1"), ("show", "1"), ("--requeue-id", "1")]
)
def test_without_a_database_one_sentence_says_what_to_set(
    offline: CommandLine, arguments: tuple[str, ...]
) -> None:
    told = offline.run(*arguments, status=ExitStatus.USAGE).stderr
    assert told.count("\n") == 1
    assert "DATABASE_URL" in told
    assert "`reproq-prefork demo` does not need one" in told


def test_without_an_executor_one_sentence_says_what_to_set(cli: CommandLine) -> None:
    told = cli.run(status=ExitStatus.USAGE).stderr
    assert told.count("\n") == 1
    assert "--executor-module" in told


@pytest.mark.parametrize("arguments", [("bogus",), ("--bogus",), ("show",), ("enqueue",), ("prune",)])
def test_a_command_line_that_makes_no_sense_is_a_usage_error(
    offline: CommandLine, arguments: tuple[str, ...]
) -> None:
    told = offline.run(*arguments, status=ExitStatus.USAGE)
    assert told.stdout == ""
    assert told.stderr.startswith("reproq-prefork: ")
    assert "--help`." in told.stderr


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("worker", "The master and its workers start without a command"),
        ("run", "The master and its workers start without a command"),
        ("retry", "--requeue-id ID"),
        ("enqeue", "Did you mean enqueue?"),
        ("stat", "Did you mean status?"),
        ("purge", "Did you mean prune?"),
        ("ls", "Did you mean list?"),
        ("bogus", "There are migrate, enqueue, cancel"),
    ],
)
def test_an_unknown_command_is_answered_with_the_near_ones(
    offline: CommandLine, word: str, said: str
) -> None:
    told = offline.run(word, status=ExitStatus.USAGE).stderr
    assert f'No such command "{word}". ' in told
    assert said in told


def test_a_django_project_that_is_not_there_is_one_sentence(offline: CommandLine) -> None:
    for arguments in ((), ("config",), ("status",)):
        told = offline.run("--django", "nosuch.settings", *arguments, status=ExitStatus.USAGE)
        (line,) = (line for line in told.stderr.splitlines() if "stopping at once" not in line)
        assert f"--django nosuch.settings: there is no module nosuch in {offline.directory}" in line
        assert "--chdir" in line


def test_an_import_in_the_settings_that_fails_is_shown_whole(offline: CommandLine) -> None:
    (offline.directory / "mysite.py").write_text("import nosuch")
    told = subprocess.run(
        [sys.executable, "-m", "reproq_prefork", "config", "--django", "mysite"],
        capture_output=True,
        text=True,
        cwd=offline.directory,
        env=offline.environ,
        timeout=30,
    )
    assert "there is no module nosuch" not in told.stderr
    assert "import nosuch" in told.stderr


def test_the_ready_line_says_what_is_served(cli: CommandLine) -> None:
    for workers, said in (
        ("1", "ready: 1 worker, queues default, executor command\n"),
        ("2", "ready: 2 workers, queues mail, slow, executor command\n"),
    ):
        queue = () if workers == "1" else ("--queue", "mail,slow")
        process = cli.start("-w", workers, "--command", "true", *queue)
        assert process.stderr is not None
        try:
            line = next(line for line in process.stderr if "ready: " in line)
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
        assert line.endswith(said)


def test_a_database_that_cannot_be_reached_has_its_own_status(offline: CommandLine) -> None:
    offline.environ["DATABASE_URL"] = "postgresql://app:s3cret@127.0.0.1:1/app"
    for arguments in (("status",), ("migrate",), ("enqueue", "1")):
        told = offline.run(*arguments, status=ExitStatus.DATABASE_UNAVAILABLE).stderr
        assert (
            'The database app at 127.0.0.1:1 cannot be used: connection to server at "127.0.0.1", port 1 failed: '
            "Connection refused. No server listens there: start it, or correct host and port in DATABASE_URL"
        ) in told
        assert "s3cret" not in told


def test_a_database_without_the_schema_has_its_own_status(tmp_path: Path, empty_database_url: str) -> None:
    cli = CommandLine(tmp_path, empty_database_url)
    for arguments in (("status",), ("enqueue", "1"), ("show", "1"), ("--requeue-id", "1")):
        told = cli.run(*arguments, status=ExitStatus.SCHEMA_MISMATCH).stderr
        assert "Run `reproq-prefork migrate`." in told
        assert 'has no reproq schema in its search path ("$user", public)' in told


def test_a_schema_outside_of_the_search_path_is_named(tmp_path: Path, empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute("create schema jobs")
    inside = CommandLine(tmp_path, conninfo.make_conninfo(empty_database_url, options="-csearch_path=jobs"))
    inside.output("migrate")
    inside.output("status")
    told = CommandLine(tmp_path, empty_database_url).run("status", status=ExitStatus.SCHEMA_MISMATCH).stderr
    assert "There is one in the schema jobs: set the search path" in told


def test_ctrl_c_ends_a_command_with_130(cli: CommandLine) -> None:
    process = cli.start("status", "--watch")
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "no runs\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors.strip() == ""


def test_a_closed_output_pipe_is_not_reported_as_an_error(cli: CommandLine) -> None:
    process = cli.start("status", "--watch")
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        assert process.stdout.readline() == "no runs\n"
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=20) == ExitStatus.FAILURE


# --- requeue ---


def finished_run(connection: Connection, **arguments: Any) -> Any:
    run = enqueue(connection, {"n": 1}, **arguments)
    connection.execute("update task_runs set status = 'FAILED', finished_at = now() where id = %s", (run.id,))
    return run


def test_a_run_is_put_in_the_queue_again_by_its_id_and_by_its_hash(
    cli: CommandLine, connection: Connection
) -> None:
    run = finished_run(connection)
    first = int(cli.output("--requeue-id", str(run.id)))
    second = int(cli.output("--requeue-hash", run.spec_hash))
    rows = connection.execute("select id, replay_of, status from task_runs order by id").fetchall()
    assert rows == [(run.id, None, "FAILED"), (first, run.id, "PENDING"), (second, first, "PENDING")]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--requeue-id", "999"),
        ("--requeue-id", "99999999999999999999"),
        ("--requeue-id=-1",),
        ("--requeue-hash", NOBODYS_HASH),
    ],
)
def test_a_run_that_is_not_there_has_its_own_status(cli: CommandLine, arguments: tuple[str, ...]) -> None:
    told = cli.run(*arguments, status=ExitStatus.NOT_FOUND)
    assert told.stdout == ""
    assert told.stderr.startswith("reproq-prefork: No task run has the ")


def test_a_held_key_has_its_own_status_and_is_named(cli: CommandLine, connection: Connection) -> None:
    run = enqueue(connection, 1, unique_key="order 7")
    for arguments in (("--requeue-id", str(run.id)), ("--requeue-hash", run.spec_hash)):
        told = cli.run(*arguments, status=ExitStatus.CONFLICT)
        assert told.stdout == ""
        assert f'The unique key "order 7" is held by run {run.id}' in told.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--requeue-id", "x"),
        ("--requeue-id", "1.5"),
        ("--requeue-hash", "ab"),
        ("--requeue-id", "1", "--requeue-hash", NOBODYS_HASH),
        ("--requeue-id", "1", "status"),
        ("--requeue-id", "1", "--workers", "4"),
    ],
)
def test_wrong_options_for_a_requeue_are_a_usage_error(cli: CommandLine, arguments: tuple[str, ...]) -> None:
    cli.run(*arguments, status=ExitStatus.USAGE)


# --- the master ---


def executor(directory: Path) -> str:
    program = directory / "task.sh"
    program.write_text('#!/bin/sh\necho "$WHO"\n', encoding="utf-8")
    program.chmod(0o755)
    return str(program)


def test_the_master_runs_what_was_enqueued_and_ends_with_0(cli: CommandLine, connection: Connection) -> None:
    run_id = cli.output("enqueue", '{"n": 1}').split()[0]
    done = cli.run(
        "--command", executor(cli.directory), "-w", "1", "--drain", environ={"WHO": '"me"'}, status=0
    )
    assert done.stdout == ""
    row = connection.execute("select status, result from task_runs where id = %s", (run_id,)).fetchone()
    assert row == ("SUCCESSFUL", "me")


def test_a_reload_reads_the_files_again_and_keeps_the_worker_name(
    cli: CommandLine, connection: Connection
) -> None:
    """HUP keeps the flags, the environment and the worker name, and reads the files as they are now."""
    program = executor(cli.directory)
    write_private(cli.directory / ".env", f"EXECUTOR_COMMAND={program}\nQUEUE_NAME=first\n")

    def name_of_worker_for(queue: str) -> str:
        row = connection.execute(
            "select split_part(id, '/', 1) from reproq_workers where queues = %s", ([queue],)
        ).fetchone()
        return row[0] if row else ""

    process = cli.start("-w", "1")
    try:
        name = wait_until(lambda: name_of_worker_for("first"), 20, "the first worker to register")
        write_private(cli.directory / ".env", f"EXECUTOR_COMMAND={program}\nQUEUE_NAME=second\n")
        (cli.directory / ".env").chmod(0o644)
        # A name that was made anew would hold another second.
        wait_until(lambda: not name.endswith(f"{datetime.now(UTC):%Y%m%dT%H%M%S}"), 2, "the next second")
        process.send_signal(signal.SIGHUP)
        assert wait_until(lambda: name_of_worker_for("second"), 20, "a worker of the new queue") == name
    finally:
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=30)
    assert process.returncode == 0
    assert log.count(".env can be read by other users") == 1


@pytest.mark.parametrize(
    "arguments", [("--executor-module", "greeet"), ("--command", "./nowhere.sh")], ids=["module", "command"]
)
def test_a_master_does_not_start_without_the_program_of_tasks(
    cli: CommandLine, connection: Connection, arguments: tuple[str, ...]
) -> None:
    run = enqueue(connection, {"n": 1})
    told = cli.run(*arguments, "-w", "1", status=ExitStatus.USAGE).stderr
    assert "ready" not in told
    assert arguments[1] in told
    assert connection.execute("select claims from task_runs where id = %s", (run.id,)).fetchone() == (0,)


def test_a_reload_with_an_executor_that_is_not_there_changes_nothing(
    cli: CommandLine, connection: Connection
) -> None:
    write_private(cli.directory / ".env", f"EXECUTOR_COMMAND={executor(cli.directory)}\n")
    process = cli.start("-w", "1", environ={"WHO": "1"})
    log = ""
    assert process.stderr is not None
    try:
        while "ready: " not in log:
            log += process.stderr.readline()
        write_private(cli.directory / ".env", "EXECUTOR_MODULE=greeet\n")
        process.send_signal(signal.SIGHUP)
        while "greeet" not in log:
            log += process.stderr.readline()
        run = enqueue(connection, {"n": 1})
        wait_until(lambda: get_run(connection, run.id).status is Status.SUCCESSFUL, 20, "the run to succeed")
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert "reloaded" not in log


def test_a_program_that_is_deleted_while_workers_run_charges_no_run(
    cli: CommandLine, connection: Connection
) -> None:
    program = Path(executor(cli.directory))
    process = cli.start("-w", "2", "--command", str(program), environ={"WHO": "1", "POLL_INTERVAL": "100ms"})
    try:
        assert process.stderr is not None
        while "ready: " not in process.stderr.readline():
            pass
        program.rename(program.with_suffix(".gone"))
        ids = [enqueue(connection, {"n": number}, max_attempts=1).id for number in range(20)]
        wait_until(
            lambda: len(connection.execute("select from task_runs where claims > 0").fetchall()) > 1,
            20,
            "both workers to hand runs back",
        )
        for run in (get_run(connection, id_) for id_ in ids):
            assert (run.status, run.attempts) in ((Status.PENDING, 0), (Status.RUNNING, 1))
            assert run.errors == ()
        program.with_suffix(".gone").rename(program)
        wait_until(
            lambda: all(get_run(connection, id_).status is Status.SUCCESSFUL for id_ in ids),
            40,
            "all to succeed",
        )
    finally:
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=30)
    warnings = [line for line in log.splitlines() if "cannot be started" in line]
    assert 1 <= len(warnings) <= 2, "at most one for each worker"
    assert f"{program} cannot be started: No such file or directory" in warnings[0]


# --- a driver that does not work ---

WITHOUT_LIBPQ = """
import ctypes.util, sys
sys.modules["psycopg_binary"] = sys.modules["psycopg_c"] = None
ctypes.util.find_library = lambda name: None
"""
WITHOUT_PSYCOPG = "import sys; sys.modules['psycopg'] = None"
WITHOUT_CLICK = "import sys; sys.modules['click'] = None"


def run_after(preparation: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = f"{preparation}\nfrom reproq_prefork.cli import main\nmain()"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=30
    )


@pytest.mark.parametrize("preparation", [WITHOUT_LIBPQ, WITHOUT_PSYCOPG], ids=["libpq", "psycopg"])
@pytest.mark.parametrize("arguments", [["--version"], ["status"], []])
def test_without_libpq_every_command_says_what_to_install(preparation: str, arguments: list[str]) -> None:
    done = run_after(preparation, *arguments)
    assert (done.returncode, done.stdout) == (ExitStatus.FAILURE, "")
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("reproq-prefork: psycopg, the driver of PostgreSQL, cannot be used (")
    assert "pip install 'reproq-prefork[binary]'" in sentence


def test_another_import_that_fails_is_not_taken_for_a_missing_driver() -> None:
    done = run_after(WITHOUT_CLICK)
    assert "Traceback" in done.stderr
    assert "libpq" not in done.stderr
