"""Every program in examples/, run as its own first lines say, with a real supervisor."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from reproq_prefork.model.limits import MAX_ARGV_PAYLOAD_BYTES
from reproq_prefork.settings.options import DEFAULT_SHUTDOWN_TIMEOUT_S
from reproq_prefork.spec import spec_hash
from tests.support.checkout import CHECKOUT
from tests.support.postgres.databases import new_database
from tests.support.postgres.servers import Server
from tests.support.supervisor.command_line import CommandLine
from tests.support.supervisor.supervisor import Connection, Supervisor, add_run, run_row, wait_for_status
from tests.support.waiting import wait_until

EXAMPLES = CHECKOUT / "examples"
VECTORS = json.loads((CHECKOUT / "docs" / "spec-hash-vectors.json").read_text(encoding="utf-8"))
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # as in an activated .venv
TIMEOUT_S = 30

EXECUTORS = {
    "python_executor.py": "python3",
    "helper_executor.py": "python3",
    "shell_executor.sh": "jq",
    "node_executor.js": "node",
}


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not on this machine")


@dataclass(frozen=True)
class Trial:
    """One example executor at work, in a directory like the top of the repository."""

    directory: Path
    commands: list[list[str]]  # what its first lines say, split as a shell would
    database_url: str
    connection: Connection


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=needs(program)) for name, program in EXECUTORS.items()],
)
def trial(
    request: pytest.FixtureRequest,
    server: Server,
    template_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Trial]:
    directory = tmp_path_factory.mktemp("repository")
    shutil.copytree(EXAMPLES, directory / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    commands = documented_commands(EXAMPLES / request.param)
    with (
        new_database(server.url, template_url) as url,
        psycopg.connect(url, autocommit=True) as connection,
        Supervisor(
            url,
            directory,
            environ={"PATH": PATH, "EXECUTOR_COMMAND": ""},
            arguments=tuple(commands[0][1:]),
        ),
    ):
        yield Trial(directory, commands, url, connection)


def documented_commands(example: Path) -> list[list[str]]:
    """The indented lines of the example's first comment."""
    lines = re.findall(r"^(?:#|//|--)?    +((?:reproq-prefork|psql|python3) .*)$", example.read_text(), re.M)
    return [shlex.split(line) for line in lines]


def test_an_executor_does_what_its_first_lines_say(trial: Trial) -> None:
    (trial.directory / "README.md").write_text("how to do it:\nread on\n")
    enqueue = trial.commands[1]
    assert enqueue[:2] == ["reproq-prefork", "enqueue"]
    printed = CommandLine(trial.directory, trial.database_url).output(*enqueue[1:])
    run_id, name = printed.split()
    run = wait_for_status(trial.connection, int(run_id), "SUCCESSFUL", "FAILED")
    assert (run["status"], run["result"], run["errors"]) == ("SUCCESSFUL", {"words": 6}, [])
    assert name == spec_hash(json.loads(enqueue[2]))


def test_an_executor_takes_a_large_payload_from_its_standard_input(trial: Trial) -> None:
    file = words(trial.directory / "large.txt", "one two")
    payload = {"file": file, "more": "x" * MAX_ARGV_PAYLOAD_BYTES}
    run = wait_for_status(trial.connection, add_run(trial.connection, payload), "SUCCESSFUL", "FAILED")
    assert (run["result"], run["errors"]) == ({"words": 2}, [])


def test_a_task_that_is_not_possible_yet_is_tried_again(trial: Trial) -> None:
    file = trial.directory / "late.txt"
    run_id = add_run(trial.connection, {"file": str(file)}, max_attempts=1000)
    wait_until(lambda: run_row(trial.connection, run_id)["errors"], TIMEOUT_S, "a failed attempt")
    words(file, "here at last")
    run = wait_for_status(trial.connection, run_id, "SUCCESSFUL")
    assert run["result"] == {"words": 3}
    assert run["attempts"] == len(run["errors"]) + 1


def test_an_executor_says_why_it_failed(trial: Trial) -> None:
    run_id = add_run(trial.connection, {"file": "/nowhere/absent.txt"}, max_attempts=1)
    error = wait_for_status(trial.connection, run_id, "FAILED")["errors"][0]
    assert error["kind"] == "failed"
    assert "/nowhere/absent.txt" in error["message"]
    assert "no such file" in error["message"].lower()


def test_a_failure_that_no_attempt_can_help_is_not_tried_again(trial: Trial) -> None:
    run = wait_for_status(trial.connection, add_run(trial.connection, {}, max_attempts=3), "FAILED")
    assert run["attempts"] == 1
    assert run["errors"][0]["message"] == "the payload names no file"


def words(file: Path, text: str) -> str:
    """Write the file whole: an executor may look at any moment."""
    draft = file.with_suffix(".draft")
    draft.write_text(text, encoding="utf-8")
    draft.rename(file)
    return str(file)


def output_of(example: str, database_url: str) -> str:
    """What the example prints, run as its first lines say."""
    (command,) = documented_commands(EXAMPLES / example)
    done = subprocess.run(
        [word.replace("$DATABASE_URL", database_url) for word in command],
        cwd=CHECKOUT,
        env={"PATH": PATH, "DATABASE_URL": database_url},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def rows(connection: Connection) -> list[Any]:
    return connection.execute(
        "select id, payload, spec_hash, queue_name from task_runs order by id"
    ).fetchall()


@needs("psql")
def test_plain_sql_enqueues_runs_with_the_same_hashes_as_the_api(
    database_url: str, connection: Connection
) -> None:
    output_of("enqueue.sql", database_url)
    assert [(payload, name, queue) for _, payload, name, queue in rows(connection)] == [
        ({"file": "README.md"}, spec_hash({"file": "README.md"}), "default"),
        ({"file": "CHANGELOG.md"}, spec_hash({"file": "CHANGELOG.md"}), "reports"),
    ]


@needs("psql")
def test_plain_sql_adds_no_second_run_of_a_key(database_url: str, connection: Connection) -> None:
    output_of("enqueue.sql", database_url)
    output_of("enqueue.sql", database_url)
    assert [payload["file"] for _, payload, *_ in rows(connection)].count("CHANGELOG.md") == 1


def test_the_hash_in_plain_sql_is_right_for_every_plain_vector(connection: Connection) -> None:
    (expression,) = set(re.findall(r"encode\(.*?'hex'\)", (EXAMPLES / "enqueue.sql").read_text()))
    query = f"select {expression.replace('canonical', '%s::text')}"
    plain = [vector for vector in VECTORS["accepted"] if vector["plain"]]
    assert len(plain) > 10
    for vector in plain:
        assert connection.execute(query, [vector["canonical"]]).fetchone() == (vector["sha256"],)


def test_the_api_enqueues_in_the_transaction_of_the_caller(database_url: str, connection: Connection) -> None:
    enqueued, rolled_back = output_of("enqueue.py", database_url).splitlines()
    (row,) = rows(connection)
    assert row[1:3] == ({"file": "README.md"}, spec_hash({"file": "README.md"}))
    assert enqueued == f"enqueued {row[0]} {row[2]}"
    assert rolled_back == f"rolled back {row[0] + 1} {spec_hash({'file': 'CHANGELOG.md'})}"


def unit() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    text = (EXAMPLES / "systemd" / "reproq-prefork.service").read_text()
    parser.read_string(text.replace("\\\n", " ").replace("/srv/reproq-prefork", str(CHECKOUT)))
    return parser["Service"]


def test_the_service_notifies_systemd_when_it_is_ready_reloads_and_stops(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    service = unit()
    assert (service["Type"], service["ExecReload"]) == ("notify", "/bin/kill -HUP $MAINPID")
    program, *arguments = shlex.split(service["ExecStart"])
    assert Path(program).name == "reproq-prefork"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(TIMEOUT_S)
        supervisor = Supervisor(
            database_url,
            Path(service["WorkingDirectory"]),
            environ={"EXECUTOR_COMMAND": "", "NOTIFY_SOCKET": str(tmp_path / "notify")},
            arguments=(*arguments, "--python-path", sys.executable),
            log_path=tmp_path / "log",
        )
        with supervisor:
            wait_for_message(systemd, "READY=1")
            run_id = add_run(connection, {"file": words(tmp_path / "file", "a b")})
            assert wait_for_status(connection, run_id, "SUCCESSFUL")["result"] == {"words": 2}
            supervisor.send(signal.SIGHUP)
            wait_for_message(systemd, "RELOADING=1")
            wait_for_message(systemd, "READY=1")
            supervisor.send(signal.SIGTERM)
            wait_for_message(systemd, "STOPPING=1")
            assert supervisor.wait() == 0


def wait_for_message(systemd: socket.socket, state: str) -> None:
    while not systemd.recv(4096).decode().startswith(state):
        pass


def test_the_unit_gives_tasks_the_time_that_the_master_gives_them() -> None:
    assert int(unit()["TimeoutStopSec"]) > DEFAULT_SHUTDOWN_TIMEOUT_S + 10


@needs("systemd-analyze")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    text = (EXAMPLES / "systemd" / "reproq-prefork.service").read_text()
    copy = tmp_path / "reproq-prefork.service"
    copy.write_text(text.replace("/srv/reproq-prefork/.venv/bin/reproq-prefork", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_example_is_in_the_index_and_run_here() -> None:
    site = EXAMPLES / "django_site"  # tests/django/test_example_site.py runs it
    files = {
        "django_site/" if site in path.parents else str(path.relative_to(EXAMPLES))
        for path in EXAMPLES.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.name != "README.md"
    }
    index = set(re.findall(r"^\| \[`(.*?)`\]\(\1\) \|", (EXAMPLES / "README.md").read_text(), re.M))
    assert index == files
    assert files == {
        *EXECUTORS,
        "django_site/",
        "enqueue.sql",
        "enqueue.py",
        "systemd/reproq-prefork.service",
    }
