"""Each command, as a user types it and reads it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import psycopg
import pytest

from reproq_prefork import Spec, Status, enqueue, get_run, requeue
from reproq_prefork.errors import ExitStatus
from reproq_prefork.store.migration_files import known_migrations
from tests.support.supervisor.command_line import CommandLine, Terminal
from tests.support.supervisor.supervisor import restoring

Connection = psycopg.Connection[Any]
NEWEST = known_migrations()[-1]


@pytest.fixture
def cli(tmp_path: Path, database_url: str) -> CommandLine:
    return CommandLine(tmp_path, database_url)


@pytest.fixture
def bare(tmp_path: Path, empty_database_url: str) -> CommandLine:
    """With a database that has no schema."""
    return CommandLine(tmp_path, empty_database_url)


# --- migrate ---


def test_migrate_says_what_it_did(bare: CommandLine) -> None:
    labels = [each.label for each in known_migrations()]
    assert bare.output("migrate", "--dry-run") == "".join(f"would apply {label}\n" for label in labels)
    assert bare.output("migrate") == "".join(f"applied {label}\n" for label in labels)
    assert bare.output("migrate") == f"nothing to do: the schema has version {NEWEST.version}\n"
    newest_but_one = str(NEWEST.version - 1)
    assert bare.output("migrate", "--dry-run", "--to", newest_but_one) == f"would take back {NEWEST.label}\n"
    assert bare.output("migrate", "--to", "0", "--yes").splitlines() == [
        f"taken back {label}" for label in reversed(labels)
    ]
    assert bare.output("migrate", "--to", "0") == "nothing to do: the schema has version 0\n"


def test_migrate_status_lists_each_migration(bare: CommandLine) -> None:
    bare.output("migrate", "--to", "1")
    first, second = bare.output("migrate", "--status").splitlines()[:2]
    assert re.match(r"0001_task_runs +applied 20", first)
    assert re.fullmatch(r"0002_workers +not applied", second)
    with psycopg.connect(bare.environ["DATABASE_URL"]) as connection:
        connection.execute("update reproq_schema_migrations set checksum = repeat('0', 64)")
        connection.execute("insert into reproq_schema_migrations (version, name) values (99, 'later')")
    lines = bare.output("migrate", "--status").splitlines()
    assert lines[0].endswith("  its file has changed since")
    assert lines[-1].endswith("  of a newer release")


def test_migrate_refuses_a_changed_file_and_a_version_that_is_not_there(bare: CommandLine) -> None:
    assert "--to: there is no version 99" in bare.run("migrate", "--to", "99", status=2).stderr
    bare.run("migrate", "--to", "-1", status=2)
    bare.run("migrate", "--status", "--dry-run", status=2)
    bare.output("migrate")
    with psycopg.connect(bare.environ["DATABASE_URL"]) as connection:
        connection.execute("update reproq_schema_migrations set checksum = 'x' where version = 2")
    told = bare.run("migrate", status=ExitStatus.SCHEMA_MISMATCH).stderr
    assert "other files than those of this release: 0002_workers." in told


def test_migrate_drops_no_data_without_a_yes(cli: CommandLine, connection: Connection) -> None:
    enqueue(connection, 1)
    told = cli.run("migrate", "--to", "0", status=ExitStatus.USAGE).stderr
    assert "This removes the whole schema, with all runs in it. Go on?" in told
    assert "give --yes" in told
    told = cli.run("migrate", "--to", "5", status=ExitStatus.USAGE).stderr
    assert "takes back 0009_copies, 0006_roles, and drops what their tables and columns hold" in told
    assert connection.execute("select count(*) from task_runs").fetchone() == (1,)
    cli.output("migrate", "--to", "9")  # a function that is gone can be made again
    cli.output("migrate")


def test_a_person_at_a_terminal_is_asked_before_data_is_dropped(cli: CommandLine) -> None:
    with Terminal(cli, "migrate", "--to", "0") as terminal:
        terminal.wait_for("Go on? [y/N]: ")
        terminal.type("n\n")
        assert terminal.status() == ExitStatus.FAILURE
    assert "Nothing was changed." in terminal.shown
    cli.output("status")


# --- enqueue ---


def test_enqueue_prints_the_id_and_the_hash(cli: CommandLine, connection: Connection) -> None:
    text = '{"b": 1.50, "a": "é"}'
    told = cli.output("enqueue", text)
    run_id, spec_hash = told.split()
    assert told == f"{run_id} {spec_hash}\n"
    run = get_run(connection, int(run_id))
    assert spec_hash == run.spec_hash == Spec.parse(text).hash
    assert (run.queue_name, run.priority, run.max_attempts) == ("default", 0, 3)
    assert (run.run_after, run.timeout_seconds, run.unique_key) == (None, None, None)


def test_enqueue_accepts_every_option_of_a_run(cli: CommandLine, connection: Connection) -> None:
    words = [
        "--queue",
        "mail",
        "--priority",
        "-5",
        "--max-attempts",
        "1",
        "--timeout",
        "1m30s",
        "--unique",
        "k",
    ]
    run_id = cli.output("enqueue", "-", *words, "--run-after", "2031-05-17T08:30Z", stdin="[1]").split()[0]
    run = get_run(connection, int(run_id))
    assert (run.payload, run.queue_name, run.priority, run.max_attempts) == ([1], "mail", -5, 1)
    assert (run.timeout_seconds, run.unique_key) == (90, "k")
    assert run.run_after is not None
    assert run.run_after.isoformat().startswith("2031-05-17T08:30:00")
    later = get_run(connection, int(cli.output("enqueue", "1", "--run-after", "10m").split()[0]))
    assert later.run_after is not None
    assert (later.run_after - later.enqueued_at).total_seconds() == 600


def test_enqueue_of_a_held_key_prints_the_run_that_holds_it(cli: CommandLine) -> None:
    first = cli.output("enqueue", "1", "--unique", "k")
    again = cli.run("enqueue", "2", "--unique", "k", status=0)
    assert again.stdout == first
    assert again.stderr == (
        f'Nothing was added: run {first.split()[0]} holds the unique key "k" and is PENDING.\n'
    )


@pytest.mark.parametrize(
    ("arguments", "stdin", "sentence"),
    [
        (("{",), b"", "The payload is not valid: $: not JSON"),
        (("-",), b"", "not JSON"),
        (("-",), b'"\xff"', "not UTF-8"),
        (('{"a": [NaN]}',), b"", "a[0]: NaN is not JSON"),
        (('{"a": 1, "a": 2}',), b"", "more than once"),
        (('"\\u0000"',), b"", "U+0000 cannot be stored"),
        (("-",), b" " * (8 * 1024 * 1024 + 1), "longer than 8388608 bytes"),
        (("-",), b'"' + b"x" * 1024 * 1024 + b'"', "the limit is 1048576"),
        (("1", "--priority", "101"), b"", "--priority"),
        (("1", "--queue", "a,b"), b"", "holds a comma"),
        (("1", "--queue", ""), b"", "queue_name must be a string that is not empty"),
        (("1", "--run-after", "soon"), b"", '"soon" is neither a time such as'),
        (("1", "--run-after", "2031-05-17T08:30"), b"", "has no time zone; add Z"),
        (("1", "--timeout", "-5"), b"", "--timeout"),
        (("1", "--timeout", "400d"), b"", "timeout_seconds must be from 0"),
        (("1", "--max-attempts", "0"), b"", "--max-attempts"),
        (("1", "--unique", "k" * 1025), b"", "longer than 1024 bytes"),
    ],
)
def test_enqueue_refuses_wrong_values_with_a_sentence(
    cli: CommandLine, connection: Connection, arguments: tuple[str, ...], stdin: bytes, sentence: str
) -> None:
    told = cli.run("enqueue", *arguments, stdin=stdin, status=ExitStatus.USAGE)
    assert sentence in told.stderr
    assert told.stdout == ""
    assert connection.execute("select count(*) from task_runs").fetchall() == [(0,)]


# --- status ---


def test_status_is_a_table_of_queues_and_of_workers(cli: CommandLine, connection: Connection) -> None:
    assert cli.output("status") == "no runs\n\nno workers\n"
    enqueue(connection, 1, queue_name="mail")
    connection.execute(
        "insert into reproq_workers (id, host, host_identity, pid, pid_started, master_pid, "
        "master_started, version, queues, lease_expires_at) "
        "values ('w-1', 'h', 'h', 7, 1, 1, 1, '0', '{a,b}', now() + interval '2 hours 30 seconds')",
    )
    with restoring(connection):
        connection.execute(
            "insert into task_runs (payload, spec_hash, status, leased_by, lease_expires_at, attempts, "
            "last_attempted_at) values ('{\"v\": 1, \"task\": \"shop.send\"}', repeat('ab', 32), 'RUNNING', "
            "'w-1', now(), 2, now() - interval '90 minutes')"
        )
    lines = [line.split() for line in cli.output("status").splitlines()]
    assert lines[0] == [
        "queue",
        "pending",
        "due",
        "oldest",
        "due",
        "running",
        "successful",
        "failed",
        "cancelled",
    ]
    assert lines[1] == ["default", "0", "0", "-", "1", "0", "0", "0"]
    assert lines[2][:3] == ["mail", "1", "1"]
    assert lines[2][3].endswith("s")
    worker = lines[-1]
    assert worker[:3] == ["w-1", "h", "7"]
    assert worker[4:6] == ["2h", "0m"]
    assert " ".join(worker[6:]).startswith("2 shop.send (default, attempt 2) for 1h 30m")


def test_status_as_json_has_every_number(cli: CommandLine, connection: Connection) -> None:
    enqueue(connection, 1, queue_name="mail", priority=3)
    state = json.loads(cli.output("status", "--json"))
    (queue,) = state["queues"]
    assert queue.pop("oldest_due_seconds") >= 0
    assert queue == {
        "queue": "mail",
        **{status.value.lower(): int(status is Status.PENDING) for status in Status},
        "due": 1,
        "estimated": [],
    }
    assert state["workers"] == []


def test_a_queue_with_a_hostile_name_cannot_draw_on_the_terminal(
    cli: CommandLine, connection: Connection
) -> None:
    with restoring(connection):
        connection.execute(
            "insert into task_runs (payload, spec_hash, queue_name) values ('1', repeat('ab', 32), %s)",
            ("\x1b[2J\n\u202e",),
        )
    shown = cli.output("status")
    assert "\\x1b[2J\\n\\u202e" in shown
    assert "\x1b" not in shown


def test_status_watches_until_it_is_stopped(cli: CommandLine, connection: Connection) -> None:
    process = cli.start("status", "--watch", "--json")
    assert process.stdout is not None
    with process:
        assert json.loads(process.stdout.readline())["queues"] == []
        enqueue(connection, 1)
        assert json.loads(process.stdout.readline())["queues"][0]["pending"] == 1
        process.terminate()


# --- prune ---


def test_prune_deletes_what_finished_long_ago(cli: CommandLine, connection: Connection) -> None:
    for status, days in (("SUCCESSFUL", 8), ("FAILED", 8), ("FAILED", 31), ("SUCCESSFUL", 6)):
        run = enqueue(connection, days)
        connection.execute(
            "update task_runs set status = %s, finished_at = now() - %s * interval '1 day', "
            "enqueued_at = now() - interval '99 days' where id = %s",
            (status, days, run.id),
        )
    ages = ("--older-than", "7d", "--failed-older-than", "30d")
    assert cli.output("prune", *ages, "--dry-run") == "would delete 2 runs\n"
    assert cli.output("prune", *ages) == "deleted 2 runs\n"
    assert cli.output("prune", *ages, "--dry-run") == "would delete 0 runs\n"
    assert cli.output("prune", "--older-than", "7d") == "deleted 1 run\n"
    assert cli.run("prune", status=2).stderr.count("--older-than")
    cli.run("prune", "--older-than", "soon", status=2)


@pytest.mark.parametrize("option", ["--older-than", "--failed-older-than"])
def test_prune_refuses_a_number_without_a_unit(cli: CommandLine, connection: Connection, option: str) -> None:
    run = enqueue(connection, 1)
    connection.execute("update task_runs set status = 'FAILED', finished_at = now() - interval '1 day'")
    told = cli.run("prune", "--older-than", "99d", option, "7", status=ExitStatus.USAGE).stderr
    assert '"7" has no unit; write 7d (days), 7h (hours), 7m (minutes) or 7s (seconds)' in told
    assert get_run(connection, run.id).status is Status.FAILED


# --- show ---


def failed_run(connection: Connection) -> int:
    errors = [
        {
            "attempt": 1,
            "kind": "failed",
            "message": "exit status 3",
            "worker": "w-1",
            "started_at": "2026-11-24T21:31:16+00:00",
            "ended_at": "2026-11-24T21:31:17+00:00",
            "stderr": "Traceback:\n  File \x1b[31mx\n\tline 2\n",
        },
        {"attempt": 2, "kind": "timeout", "message": "longer than 5 s", "retry_after_seconds": 1.5},
    ]
    payload = {"v": 1, "task": "shop.send", "args": [9007199254740993, 0.1], "kwargs": {}}
    run = enqueue(connection, payload, queue_name="mail", priority=3, max_attempts=2, unique_key="order 7")
    connection.execute(
        "update task_runs set status = 'FAILED', attempts = 2, claims = 2, started_at = now(), "
        "last_attempted_at = now(), finished_at = now(), worker_ids = '{w-1,w-2}', errors = %s where id = %s",
        (json.dumps(errors), run.id),
    )
    return run.id


def test_show_prints_everything_about_a_run_readably(cli: CommandLine, connection: Connection) -> None:
    run_id = failed_run(connection)
    replay = requeue(connection, run_id=run_id)
    shown = cli.output("show", str(run_id))
    assert shown.startswith(f"run {run_id}: FAILED, 2 of 2 attempts\n")
    for line in (
        "  task          shop.send",
        "  queue         mail, priority 3",
        "  unique key    order 7",
        "  attempted by  w-1, w-2",
        f"  re-run as     {replay.id} (PENDING)",
        '    {"args":[9007199254740993,0.1],"kwargs":{},"task":"shop.send","v":1}',
        "  attempt 1: failed, 2026-11-24T21:31:16+00:00 to 2026-11-24T21:31:17+00:00",
        "    worker w-1",
        "    message: exit status 3",
        "    stderr:",
        "      | Traceback:",
        r"      |   File \x1b[31mx",
        "  attempt 2: timeout",
        "    retry_after_seconds: 1.5",
    ):
        assert f"\n{line}\n" in shown, (line, shown)
    assert "\x1b" not in shown
    assert f"\n  re-run of     {run_id}\n" in cli.output("show", str(replay.id))


def test_show_prints_what_each_attempt_used(cli: CommandLine, connection: Connection) -> None:
    run = enqueue(
        connection,
        {"v": 1, "task": "shop.send", "args": [], "kwargs": {}},
        executor="inline",
        atomic=True,
        retry_base_seconds=2.5,
        retry_max_seconds=60,
    )
    failed = {
        "attempt": 1,
        "kind": "failed",
        "message": "no luck",
        "exit": "exit status 3",
        "cpu_seconds": 0.25,
        "peak_rss_kib": 20_480,
        "output": "first\nsecond",
    }
    used = {"exit": "exit status 0", "cpu_seconds": 1.5, "peak_rss_kib": 1_310_720, "output": "done\x1b"}
    connection.execute(
        "update task_runs set status = 'SUCCESSFUL', attempts = 2, worker_ids = '{w-1,w-2}', result = 'null', "
        "finished_at = now(), errors = %s, last_attempt = %s, metadata = %s where id = %s",
        (json.dumps([failed]), json.dumps(used), '{"progress": 0.5}', run.id),
    )
    shown = cli.output("show", str(run.id))
    for line in (
        "  retry wait    up to 2.5s after the first attempt, then doubled, at most 1m",
        "  executor      inline",
        "  atomic        yes: its effects and its end are one transaction",
        "  metadata",
        '    {"progress":0.5}',
        "  attempt 1: failed",
        "    exit status 3, 0.25 s of CPU time, 20.0 MiB at most",
        "    message: no luck",
        "    output:",
        "      | second",
        "    worker w-2",
        "    exit status 0, 1.5 s of CPU time, 1,280.0 MiB at most",
        r"    output: done\x1b",
    ):
        assert f"\n{line}\n" in f"{shown}\n", (line, shown)
    assert "\n  attempt 2: succeeded, " in shown


def test_show_and_status_print_a_cancel(cli: CommandLine, connection: Connection) -> None:
    waiting, running = (enqueue(connection, 1).id for _ in range(2))
    connection.execute(
        "update task_runs set status = 'RUNNING', leased_by = 'w', lease_expires_at = now(), attempts = 1 "
        "where id = %s",
        (running,),
    )
    for run_id in (waiting, running):
        cli.output("cancel", str(run_id))
    shown = cli.output("show", str(waiting))
    assert "\n  cancelled, 20" in shown
    assert "\n    message: the task was cancelled\n" in shown
    assert re.search(r"\n  to be ended   20", cli.output("show", str(running)))
    assert f"{running} (default, attempt 1, cancelled)" in cli.output("status")
    (worker,) = json.loads(cli.output("status", "--json"))["workers"]
    assert worker["runs"][0]["cancel_requested"] is True


def test_show_as_json_is_the_row_with_exact_numbers(cli: CommandLine, connection: Connection) -> None:
    run_id = failed_run(connection)
    shown = json.loads(cli.output("show", str(run_id), "--json"))
    run = get_run(connection, run_id)
    assert shown["payload"] == run.payload
    assert shown["errors"] == list(run.errors)
    assert shown["status"] == "FAILED"
    assert shown["worker_ids"] == ["w-1", "w-2"]
    assert shown["enqueued_at"] == run.enqueued_at.isoformat()
    assert shown["replays"] == []
    columns = {
        row[0]
        for row in connection.execute(
            "select attname from pg_attribute where attrelid = 'task_runs'::regclass and attnum > 0"
        ).fetchall()
    }
    assert shown.keys() - {"replays"} == columns


def test_show_can_print_a_run_that_python_cannot_hold(cli: CommandLine, connection: Connection) -> None:
    with restoring(connection):
        row = connection.execute(
            "insert into task_runs (payload, spec_hash, status, result) "
            "values ('[1e500]', repeat('ab', 32), 'SUCCESSFUL', '\"done\"') returning id"
        ).fetchone()
    assert row
    assert "1" + "0" * 500 in cli.output("show", str(row[0]))
    assert '\n  result\n    "done"\n' in cli.output("show", str(row[0]))
    cli.output("show", str(row[0]), "--json")


def test_show_of_a_run_that_is_not_there_says_so(cli: CommandLine) -> None:
    for run_id in ("1", "99999999999999999999"):
        told = cli.run("show", run_id, status=ExitStatus.NOT_FOUND).stderr
        assert f"No task run has the id {run_id} in this database" in told
    cli.run("show", "x", status=ExitStatus.USAGE)


# --- check ---


def test_check_prints_a_line_for_each_requirement(cli: CommandLine, bare: CommandLine) -> None:
    assert cli.output("check", "--command", "sh -c true").split() == (
        ["settings", "ok", "executor", "ok", "database", "ok", "schema", "ok"]
    )
    without_executor = cli.run("check", status=ExitStatus.USAGE).stdout.splitlines()
    assert [line.split()[0] for line in without_executor] == ["settings", "executor", "database", "schema"]
    assert "--executor-module" in without_executor[1]
    absent = cli.run("check", "--command", "no-such-program", status=ExitStatus.USAGE).stdout
    assert "executor  The executor no-such-program is not a program" in absent
    (cli.directory / "greet.py").touch()
    typo = cli.run("check", "--executor-module", "greeet", status=ExitStatus.USAGE).stdout
    assert "executor  --executor-module greeet: python3 cannot run it in " in typo
    assert "there is no such module; did you mean greet?" in typo
    no_schema = bare.run("check", "--command", "sh", status=ExitStatus.SCHEMA_MISMATCH).stdout
    assert re.search(
        r"\ndatabase  ok\nschema    The database \S+ has no reproq schema in its search", no_schema
    )


def test_check_reports_a_wrong_database_and_wrong_settings(cli: CommandLine) -> None:
    cli.environ["DATABASE_URL"] = "postgresql://127.0.0.1:1/app"
    told = cli.run("check", "--command", "sh", status=ExitStatus.DATABASE_UNAVAILABLE).stdout
    assert "\ndatabase  The database app at 127.0.0.1:1 cannot be used" in told
    assert "schema" not in told
    wrong = cli.run("check", "--lease", "soon", status=ExitStatus.USAGE).stdout
    assert wrong.startswith('settings  --lease (flag): "soon" is not a duration')
