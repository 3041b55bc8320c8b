"""Row 38 of the fault list: an old and a new release side by side on one database."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from reproq_prefork.errors import ExitStatus
from reproq_prefork.model.run import LEGAL_EDGES
from tests.support.rows import audit
from tests.support.supervisor.releases import NEWEST, LaterRelease, run_command
from tests.support.supervisor.supervisor import (
    SHORT_LEASE,
    Connection,
    Supervisor,
    add_run,
    run_row,
    wait_for_status,
)
from tests.support.waiting import wait_until

CLAIM = "        claims = least(claims, 9223372036854775806) + 1,\n"
WAITERS = ("reproq_waiters", "reproq_listeners")


class Producer:
    """Tasks that are short, one in four of which fails at its first attempt."""

    def __init__(self, connection: Connection, diary: Path) -> None:
        self._connection = connection
        self._diary = str(diary)
        self.runs: list[int] = []

    def add(self, runs: int) -> list[int]:
        added = [
            add_run(
                self._connection,
                {"sleep": 0.02, "diary": self._diary}
                | ({"exit": 1, "fail_attempts": 1} if n % 4 == 0 else {}),
                max_attempts=20,
            )
            for n in range(runs)
        ]
        self.runs += added
        return added

    def wait_for_all(self) -> None:
        for run_id in self.runs:
            wait_for_status(self._connection, run_id, "SUCCESSFUL", "FAILED", "CANCELLED", timeout_s=60)


def kill_a_worker(supervisor: Supervisor) -> None:
    """Whatever it is at; it is replaced."""
    victim = supervisor.booted_worker_pids()[0]
    with contextlib.suppress(ProcessLookupError):
        os.kill(victim, signal.SIGKILL)
    wait_until(
        lambda: victim not in supervisor.worker_pids() and len(supervisor.booted_worker_pids()) == 2,
        20,
        "another worker",
    )


def releases_that_ran(connection: Connection, runs: list[int]) -> set[str | None]:
    """None: this release, which knows nothing of the column."""
    rows = connection.execute("select distinct claimed_with from task_runs where id = any (%s)", [runs])
    return {claimed_with for (claimed_with,) in rows}


@pytest.mark.timeout(180)
def test_38_an_older_release_works_beside_one_that_has_migrated_and_may_start_again(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    later = LaterRelease(
        tmp_path / "later",
        change="alter table task_runs add column claimed_with text;"
        "grant update (claimed_with) on task_runs to reproq_worker",
        works_with_since=NEWEST,
        edits={"parts/set_claimed": (CLAIM, f"{CLAIM}        claimed_with = '{LaterRelease.version}',\n")},
    )
    audit.install(connection)
    connection.prepare_threshold = (
        None  # the server refuses a prepared `select *` once there is a column more
    )
    producer = Producer(connection, tmp_path / "diary")
    with Supervisor(database_url, tmp_path, workers=2) as older:
        first = producer.add(40)
        wait_for_status(connection, first[1], "SUCCESSFUL")
        migrated = run_command(database_url, "migrate", release=later)
        assert migrated.stdout == f"applied {NEWEST + 1:04}_later\n", migrated.stderr
        with Supervisor(database_url, tmp_path, workers=2, environ=later.environ) as newer:
            producer.add(60)
            for supervisor in (older, newer, older, newer):
                kill_a_worker(supervisor)
                producer.add(20)
            older.send(signal.SIGHUP)
            older.wait_for_log("reloaded: 2 new workers")
            both = producer.add(40)
            producer.wait_for_all()
            assert releases_that_ran(connection, both) == {None, later.version}

            assert older.stop() == 0
            newer.send(signal.SIGUSR2)  # it claims nothing from now on
            newer.wait_for_log("quiet")
            assert run_command(database_url, "migrate").stdout == (
                f"nothing to do: the schema has version {NEWEST + 1}\n"
            )
            with Supervisor(database_url, tmp_path, workers=2) as again:
                alone = producer.add(20)
                producer.wait_for_all()
                assert releases_that_ran(connection, alone) == {None}
                assert (again.stop(), newer.stop()) == (0, 0)

    rows = connection.execute("select id, status, attempts, cardinality(worker_ids), errors from task_runs")
    for run_id, status, attempts, worker_ids, errors in rows:
        assert (status, worker_ids, len(errors)) == ("SUCCESSFUL", attempts, attempts - 1), run_id
        assert {entry["kind"] for entry in errors} <= {"failed", "worker_lost"}
    assert audit.final_transitions(connection) == Counter(producer.runs)
    assert audit.edges(connection) <= LEGAL_EDGES


@pytest.mark.timeout(120)
def test_38_an_older_release_that_the_new_schema_breaks_loses_nothing_and_does_not_start_again(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    later = LaterRelease(
        tmp_path / "later",
        change="alter table reproq_waiters rename to reproq_listeners",
        works_with_since=None,
        edits=dict.fromkeys(
            ("notified", "forget_waiters", "missing_rights"),
            WAITERS,
        ),
    )
    audit.install(connection)
    producer = Producer(connection, tmp_path / "diary")
    environ = {**SHORT_LEASE, "REPROQ_SHUTDOWN_TIMEOUT": "2s"}
    with Supervisor(database_url, tmp_path, workers=1, environ=environ) as older:
        at_work = add_run(connection, {"wait_for": str(tmp_path / "go")}, max_attempts=20)
        wait_for_status(connection, at_work, "RUNNING")
        assert run_command(database_url, "migrate", release=later).returncode == 0
        waiting = producer.add(10)

        # The one that runs keeps what it holds, tells what is wrong, and cannot be reloaded.
        (tmp_path / "go").touch()
        older.wait_for_log(r"relation \"reproq_waiters\" does not exist")
        older.send(signal.SIGHUP)
        older.wait_for_log("reload refused, nothing has changed")
        assert run_row(connection, at_work)["status"] == "RUNNING"
        assert {run_row(connection, run_id)["claims"] for run_id in waiting} == {0}

        refused = run_command(database_url)
        assert refused.returncode == ExitStatus.SCHEMA_MISMATCH
        sentence = f"The database has schema version {NEWEST + 1}; this release knows up to {NEWEST}."
        assert f"{sentence} Install a newer release" in refused.stderr
        assert run_command(database_url, "migrate").returncode == ExitStatus.SCHEMA_MISMATCH

        with Supervisor(database_url, tmp_path, workers=1, environ={**environ, **later.environ}) as newer:
            producer.wait_for_all()
            assert older.stop() == 0
            row = wait_for_status(connection, at_work, "SUCCESSFUL", timeout_s=30)
            assert (row["attempts"], row["claims"]) == (2, 2)
            assert newer.stop() == 0
    assert audit.final_transitions(connection) == Counter([at_work, *producer.runs])
    assert audit.edges(connection) <= LEGAL_EDGES
