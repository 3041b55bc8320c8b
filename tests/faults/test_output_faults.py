"""Rows 29 to 32 of the fault list: bad output, limits, rows that cannot be read, a full log."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import psutil
import psycopg
import pytest

from tests.support.supervisor.supervisor import Connection, Supervisor, add_run, wait_for_status
from tests.support.waiting import wait_until

MIB = 1024 * 1024


@pytest.mark.parametrize(
    "output",
    [
        b'{"half": ',
        b"NaN",
        b"[1e999999]",
        b"1e131071",
        b'{"a": "\\u0000"}',
        b'{"a": "\\ud800"}',
        "{'a': 'ä'}".encode("latin-1"),
        b'"nul \x00 byte"',
        b"\xff\xfe",
        b"[" * 5000,
    ],
)
def test_30_output_that_is_not_usable_json_ends_the_run_with_a_reason(
    output: bytes, shared_supervisor: Supervisor, shared_connection: Connection
) -> None:
    run_id = add_run(shared_connection, {"raw_output": output.hex()}, max_attempts=3)
    row = wait_for_status(shared_connection, run_id, "FAILED")
    assert [error["kind"] for error in row["errors"]] == ["unusable_output"]
    assert "standard output" in row["errors"][0]["message"]
    wait_for_status(shared_connection, add_run(shared_connection, {}), "SUCCESSFUL")


@pytest.mark.parametrize("output", [b"", b"\n\n"])
def test_30_a_program_that_prints_nothing_has_the_result_null(
    output: bytes, shared_supervisor: Supervisor, shared_connection: Connection
) -> None:
    run_id = add_run(shared_connection, {"raw_output": output.hex()})
    assert wait_for_status(shared_connection, run_id, "SUCCESSFUL")["result"] is None


def test_30_log_lines_before_the_result_of_a_task_do_no_harm(
    shared_supervisor: Supervisor, shared_connection: Connection
) -> None:
    output = b"loading \x00 \xff ...\n\n" + b'{"ok": true}\n'
    row = wait_for_status(
        shared_connection, add_run(shared_connection, {"raw_output": output.hex()}), "SUCCESSFUL"
    )
    assert row["result"] == {"ok": True}


def test_30_stderr_of_any_bytes_is_kept_as_text(
    shared_supervisor: Supervisor, shared_connection: Connection
) -> None:
    run_id = add_run(
        shared_connection, {"exit": 1, "raw_stderr": b"nul \x00, latin-1 \xe4, end".hex()}, max_attempts=1
    )
    row = wait_for_status(shared_connection, run_id, "FAILED")
    assert (
        row["errors"][0]["stderr"] == "nul \N{REPLACEMENT CHARACTER}, latin-1 \N{REPLACEMENT CHARACTER}, end"
    )


def test_30_a_flood_of_output_costs_bounded_memory(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    flood = f"{sys.executable} -I -S -c 'import sys\nfor _ in range(300): sys.stdout.write(\"x\" * {MIB})'"
    environ = {"EXECUTOR_COMMAND": flood}
    with Supervisor(database_url, tmp_path, workers=1, environ=environ) as supervisor:
        row = wait_for_status(connection, add_run(connection, {}, max_attempts=1), "FAILED", timeout_s=40)
        assert "the limit is 1,048,576" in row["errors"][0]["message"]
        assert psutil.Process(supervisor.worker_pids()[0]).memory_info().rss < 150 * MIB


def test_31_a_result_at_the_limit_is_kept_and_one_over_it_is_refused(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    program = tmp_path / "sized.py"
    program.write_text(
        "import json, sys\nn = json.loads(sys.argv[-1])['n']\nprint('\"' + 'x' * (n - 2) + '\"')\n"
    )
    environ = {"EXECUTOR_COMMAND": f"{sys.executable} -I -S {program}"}
    with Supervisor(database_url, tmp_path, workers=1, environ=environ):
        fits = add_run(connection, {"n": MIB})
        over = add_run(connection, {"n": MIB + 1}, max_attempts=1)
        assert len(wait_for_status(connection, fits, "SUCCESSFUL")["result"]) == MIB - 2
        row = wait_for_status(connection, over, "FAILED")
        assert "1,048,577 bytes, the limit is 1,048,576" in row["errors"][0]["message"]


def test_31_a_payload_at_the_limit_reaches_the_task(
    shared_supervisor: Supervisor, shared_connection: Connection
) -> None:
    overhead = len(json.dumps({"value": ""}))
    payload = {"value": "x" * (MIB - overhead)}
    run_id = add_run(shared_connection, payload)
    row = wait_for_status(shared_connection, run_id, "FAILED", "SUCCESSFUL")
    # Its echo is larger than a result may be: it arrived whole.
    assert row["errors"][0]["message"].startswith("its standard output is 1,048,5")
    with pytest.raises(psycopg.errors.CheckViolation, match="the limit is 1048576"):
        add_run(shared_connection, {"value": "x" * (MIB - overhead + 1)})


def test_31_numbers_that_would_exhaust_memory_when_read_are_refused_at_enqueue(
    connection: Connection,
) -> None:
    numbers = "[" + ",".join(["1e131071"] * 1000) + "]"
    with pytest.raises(psycopg.Error, match="limit is 1048576"):
        connection.execute("insert into task_runs (payload, spec_hash) values (%s, %s)", [numbers, "0" * 64])


@pytest.mark.timeout(
    150
)  # the server takes seconds to find out, on a busy machine more than a statement may take
def test_31_a_row_that_cannot_be_read_is_failed_by_its_id_and_the_queue_goes_on(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    connection.execute("alter table task_runs disable trigger task_runs_receive_new_runs")
    # Some 1.2 GB as text: more than PostgreSQL lets any value be.
    numbers = "[" + ",".join(["1e131071"] * 9_500) + "]"
    row = connection.execute(
        "insert into task_runs (payload, spec_hash, priority, max_attempts) values (%s, %s, 5, 1) returning id",
        [numbers, "0" * 64],
    ).fetchone()
    assert row is not None
    behind = [add_run(connection, {}) for _ in range(3)]
    with Supervisor(database_url, tmp_path, workers=2):
        for run_id in behind:
            wait_for_status(connection, run_id, "SUCCESSFUL", timeout_s=40)

        def status() -> tuple[object, ...] | None:
            return connection.execute(
                "select status, attempts, errors -> 0 ->> 'kind' from task_runs where id = %s", [row[0]]
            ).fetchone()

        wait_until(lambda: status() == ("FAILED", 1, "unreadable"), 100, "the unreadable run to be FAILED")


def test_32_work_goes_on_when_the_log_cannot_be_written(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    supervisor = Supervisor(database_url, tmp_path, log_path=Path("/dev/full"))
    with supervisor:
        wait_for_status(connection, add_run(connection, {}), "SUCCESSFUL")
        assert supervisor.stop() == 0
