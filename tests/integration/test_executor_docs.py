"""docs/executors.md is the contract with programs in any language: its programs are run, its tables are held."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from reproq_prefork.executors.process_io import TERM_GRACE_S
from reproq_prefork.executors.program_output import MAX_RETRY_AFTER_S, Output, outcome_of
from reproq_prefork.executors.tail import Tail
from reproq_prefork.model.limits import (
    MAX_ARGV_PAYLOAD_BYTES,
    MAX_PAYLOAD_BYTES,
    MAX_RESULT_BYTES,
    MAX_STDERR_TAIL_BYTES,
)
from reproq_prefork.model.outcome import Failure, FailureKind, Outcome, Snoozed
from reproq_prefork.task_exceptions import MAX_SNOOZE_S, Discard, Snooze
from tests.support.checkout import CHECKOUT
from tests.support.pages import code_blocks
from tests.support.supervisor.supervisor import Connection, Supervisor, add_run, wait_for_status

PAGE = (CHECKOUT / "docs" / "executors.md").read_text(encoding="utf-8")
TIMEOUT_S = 30

# What a program sees of itself before Python has touched anything.
INTROSPECTION = """
import json, os, sys
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
environ = open("/proc/self/environ").read().split("\\0")
print(json.dumps({
    "arguments": sys.argv[-2:],
    "environ": dict(entry.split("=", 1) for entry in environ if entry),
    "directory": os.getcwd(),
    "leads": os.getsid(0) == os.getpgrp() == os.getpid(),
    "stdin": sys.stdin.read(),
    "blocked": int(status["SigBlk"], 16),
    "descriptors": [fd for fd in map(int, os.listdir("/proc/self/fd")) if os.path.exists(f"/proc/self/fd/{fd}")],
}))
"""

CLEANS_UP = """
import signal, sys
def clean_up(*_):
    print("cleaned up", file=sys.stderr)
    print("null")
    sys.exit(0)
signal.signal(signal.SIGTERM, clean_up)
while True:
    signal.pause()
"""

LEAVES_A_DAEMON = """
import subprocess
print(subprocess.Popen(["sleep", "600"], start_new_session=True).pid)
"""


def block(language: str, number: int = 0) -> str:
    """The text of the page's code block of that language."""
    return code_blocks(PAGE, language)[number]


def table(first_heading: str) -> dict[str, str]:
    """First to second column of the table that starts with this heading, without its code marks."""
    lines = PAGE.split(f"| {first_heading} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    rows = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[-1] for row in rows}


def run_once(
    program: str, payload: dict[str, Any], connection: Connection, url: str, directory: Path, **environ: str
) -> dict[str, Any]:
    """The row of a run of `payload` after one attempt by the Python module `program`."""
    (directory / "greet.py").write_text(program, encoding="utf-8")
    modules = {"EXECUTOR_COMMAND": "", "EXECUTOR_MODULE": "greet", "PYTHON_PATH": sys.executable}
    with Supervisor(url, directory, workers=1, environ=modules | environ):
        run_id = add_run(connection, payload, max_attempts=1)
        return wait_for_status(connection, run_id, "SUCCESSFUL", "FAILED")


@pytest.mark.parametrize("number", [0, 2], ids=["plain", "helper"])
def test_the_programs_of_the_page_are_executors(
    number: int, connection: Connection, database_url: str, tmp_path: Path
) -> None:
    row = run_once(block("python", number), {"name": "Ada"}, connection, database_url, tmp_path)
    assert (row["result"], row["errors"]) == ({"greeting": "Hello, Ada"}, [])


def test_the_program_of_the_page_can_be_tried_by_hand(tmp_path: Path) -> None:
    (tmp_path / "greet.py").write_text(block("python"), encoding="utf-8")
    done = subprocess.run(
        ["sh", "-ec", block("sh")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    )
    assert json.loads(done.stdout) == {"greeting": "Hello, Ada"}


def test_a_program_is_started_as_the_page_says(
    connection: Connection, database_url: str, tmp_path: Path
) -> None:
    row = run_once(
        INTROSPECTION, {"a": 1}, connection, database_url, tmp_path, REPROQ_TASK_ENV="PATH,HOME_OF_NOBODY"
    )
    seen = row["result"]
    variables = set(table("variable"))
    assert set(seen["environ"]) == variables | {"PATH"}
    assert seen["environ"]["REPROQ_TASK_ID"] == str(row["id"])
    assert seen["environ"]["REPROQ_SPEC_HASH"] == row["spec_hash"]
    assert seen["environ"]["REPROQ_ATTEMPT"] == "1"
    assert seen["environ"]["REPROQ_CLAIM"] == str(row["claims"])
    seconds = int(seen["environ"]["REPROQ_DEADLINE"]) - row["started_at"].timestamp()
    assert seconds == pytest.approx(3600, abs=2)
    assert seen["arguments"] == ["--payload", '{"a": 1}']
    assert seen["directory"] == str(tmp_path)
    assert (seen["leads"], seen["stdin"], seen["blocked"]) == (True, "", 0)
    assert set(seen["descriptors"]) == {0, 1, 2, int(seen["environ"]["REPROQ_RESULT_FD"])}


def test_a_program_without_a_deadline_gets_none(
    connection: Connection, database_url: str, tmp_path: Path
) -> None:
    # Not even of that of a task that started this master.
    environ = {"REPROQ_TIMEOUT": "0", "REPROQ_DEADLINE": "1"}
    row = run_once(INTROSPECTION, {}, connection, database_url, tmp_path, **environ)
    assert set(table("variable")) - set(row["result"]["environ"]) == {"REPROQ_DEADLINE"}


def test_at_its_deadline_a_program_may_clean_up_but_no_longer_succeed(
    connection: Connection, database_url: str, tmp_path: Path
) -> None:
    row = run_once(CLEANS_UP, {}, connection, database_url, tmp_path, REPROQ_TIMEOUT="3s")
    (error,) = row["errors"]
    assert (row["status"], error["kind"], error["stderr"]) == ("FAILED", "timeout", "cleaned up")


def test_processes_started_by_a_program_end_with_it(
    connection: Connection, database_url: str, tmp_path: Path
) -> None:
    row = run_once(LEAVES_A_DAEMON, {}, connection, database_url, tmp_path)
    assert row["status"] == "SUCCESSFUL"
    assert not psutil.pid_exists(row["result"])


def test_the_failure_of_the_page_has_every_part_of_a_failure() -> None:
    said = json.loads(block("json"))
    failure = failed_with("a line of the log\n" + json.dumps(said))
    assert (failure.message, failure.exception, failure.traceback, failure.retry, failure.retry_after_s) == (
        said["message"],
        said["exception"],
        said["traceback"],
        said["retry"],
        said["retry_after_seconds"],
    )
    assert failed_with(block("json")).exception == said["exception"]  # over many lines, if it is all there is
    assert failed_with("one\ntwo").message == "two"
    assert "at most a year" in PAGE
    assert failed_with('{"retry_after_seconds": 1e12}').retry_after_s == MAX_RETRY_AFTER_S == 365 * 86_400


def said_at_the_end(stderr: str) -> Outcome:
    tails = Tail(MAX_RESULT_BYTES), Tail(MAX_STDERR_TAIL_BYTES), Tail(MAX_RESULT_BYTES)
    tails[1].feed(stderr.encode())
    return outcome_of(Output(1, *tails))


def failed_with(stderr: str) -> Failure:
    outcome = said_at_the_end(stderr)
    assert isinstance(outcome, Failure)
    return outcome


def test_the_snooze_of_the_page_is_a_valid_snooze() -> None:
    assert said_at_the_end(block("json", 2)) == Snoozed(60, "the build has not finished")
    assert "From 0 seconds to a hundred years" in PAGE
    assert MAX_SNOOZE_S == 100 * 365 * 86_400


def test_the_entry_for_omitted_errors_is_that_of_the_page(connection: Connection) -> None:
    row = connection.execute(
        "select reproq_append_error((select jsonb_agg(n) from generate_series(1, 851) as n), '{}') -> 20"
    ).fetchone()
    assert row == (json.loads(block("json", 1)),)


def test_the_poll_of_the_page_snoozes_until_it_gives_up() -> None:
    builds = {7: SimpleNamespace(is_running=True), 8: SimpleNamespace(is_running=False, report="fine")}
    names: dict[str, Any] = {"__name__": "shop.reports", "ask_for": builds.get}
    exec(compile(block("python", 1), "docs/executors.md", "exec"), names)  # noqa: S102
    fetch_report = names["fetch_report"]
    with pytest.raises(Snooze) as snoozed:
        fetch_report(SimpleNamespace(claim=500), 7)
    assert snoozed.value.after_s == 60
    with pytest.raises(Discard):
        fetch_report(SimpleNamespace(claim=501), 7)
    assert fetch_report(SimpleNamespace(claim=501), 8) == "fine"


def test_the_table_of_kinds_has_each_kind_and_no_other() -> None:
    kinds = table("kind")
    assert list(kinds) == [kind.value for kind in FailureKind]
    assert {kind for kind, following in kinds.items() if not following.startswith("retry")} == {
        FailureKind.UNUSABLE_OUTPUT,
        FailureKind.REFUSED,
        FailureKind.UNREADABLE,
        FailureKind.SHUTDOWN,
        FailureKind.CANCELLED,
        FailureKind.NOT_ALLOWED,
    }


def test_the_limits_of_the_page_are_those_of_the_engine() -> None:
    assert table("limit") == {
        "payload": f"{MAX_PAYLOAD_BYTES // 2**20} MiB",
        "payload as an argument": f"{MAX_ARGV_PAYLOAD_BYTES // 2**10} KiB; beyond it standard input",
        "result": f"{MAX_RESULT_BYTES // 2**20} MiB",
        "standard error that is kept": f"the last {MAX_STDERR_TAIL_BYTES // 2**10} KiB",
    }
    assert f"more\nthan {MAX_ARGV_PAYLOAD_BYTES // 2**10} KiB".replace("\n", " ") in PAGE.replace("\n", " ")
    assert f"get SIGTERM, and {TERM_GRACE_S:g} s later" in PAGE


def test_a_stale_claim_does_not_overwrite_what_a_newer_one_wrote(connection: Connection) -> None:
    connection.execute("create table invoices (task_id bigint primary key, claim bigint, total int)")

    def write(claim: int, total: int) -> int:
        return connection.execute(block("sql"), {"task_id": 7, "claim": claim, "total": total}).rowcount

    assert [write(1, 10), write(3, 30), write(2, 20), write(3, 31)] == [1, 1, 0, 1]
    assert connection.execute("select claim, total from invoices").fetchall() == [(3, 31)]
