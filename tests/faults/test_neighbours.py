"""Row 41 of the fault list: what any login of the database can send, lock and leave behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psutil
import psycopg
import pytest

from reproq_prefork.demo.postgres import EmbeddedPostgres
from tests.support.postgres.databases import as_login
from tests.support.postgres.neighbours import every_lock, flood
from tests.support.supervisor.supervisor import (
    SHORT_LEASE,
    Connection,
    Supervisor,
    add_run,
    run_row,
    wait_for_start,
    wait_for_status,
)
from tests.support.waiting import wait_until

MIB = 1 << 20
AT_ONCE_S = 0.5


@contextmanager
def a_busy_host(
    database_url: str, connection: Connection, directory: Path, *, workers: int = 2, poll: str = "500ms"
) -> Iterator[Supervisor]:
    """A host with a short lease and a task that runs all the while; its attempt is the only one in the end."""
    environ = {**SHORT_LEASE, "POLL_INTERVAL": poll}
    with Supervisor(database_url, directory, workers=workers, environ=environ) as supervisor:
        at_work = add_run(
            connection,
            {"wait_for": str(directory / "go"), "diary": str(directory / "diary")},
            max_attempts=1,
        )
        wait_for_start(directory / "diary")
        yield supervisor
        assert run_row(connection, at_work)["status"] == "RUNNING"
        (directory / "go").touch()
        assert wait_for_status(connection, at_work, "SUCCESSFUL")["claims"] == 1
        assert "lease has ended" not in supervisor.log()


def runs_go_on(connection: Connection, *, number: int = 10) -> None:
    for _ in range(number):
        wait_for_status(connection, add_run(connection, {}), "SUCCESSFUL")


def leases_are_renewed(connection: Connection, *, times: int = 8) -> None:
    """No lease ends while each is renewed so often."""

    def renewed() -> set[object]:
        rows = connection.execute(
            "select renewed_at, lease_expires_at > now() from reproq_workers"
        ).fetchall()
        assert all(holds for _, holds in rows)
        return {at for at, _ in rows}

    for _ in range(times):
        before = renewed()
        wait_until(lambda before=before: not renewed() & before, 2, "the leases to be renewed")  # type: ignore[misc]


def _idle_workers(connection: Connection) -> list[tuple[int, int]]:
    """Of each worker without a run: its process, and the server's process that serves it."""
    return connection.execute(
        "select pid, backend_pid from reproq_workers "
        "where id not in (select leased_by from task_runs where status = 'RUNNING')"
    ).fetchall()


def is_picked_up_at_once(connection: Connection) -> bool:
    row = wait_for_status(connection, add_run(connection, {}), "SUCCESSFUL")
    return bool((row["started_at"] - row["enqueued_at"]).total_seconds() < AT_ONCE_S)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("channel", "payload"),
    [
        ("reproq_task_runs", "'default' || g"),
        ("reproq_task_runs", "'default' || repeat(' ', g) || repeat('x', 5000)"),
        ("reproq_cancel", "'nobody' || g"),
        ("reproq_finished", "g::text"),
    ],
    ids=["new_runs", "large", "cancels", "ends"],
)
def test_41_a_flood_of_notifications_costs_no_lease(
    database_url: str, connection: Connection, tmp_path: Path, channel: str, payload: str
) -> None:
    with a_busy_host(database_url, connection, tmp_path, poll="1s") as supervisor:
        steward = supervisor.steward_pid()
        size = psutil.Process(steward).memory_info().rss
        with flood(database_url, tmp_path, channel, payload):
            leases_are_renewed(connection, times=12)
            runs_go_on(connection, number=5)
            grown = psutil.Process(steward).memory_info().rss - size
        assert grown < 16 * MIB
        assert supervisor.steward_pid() == steward
        # Polling would find four in a row within this time with a chance of one in sixteen.
        wait_until(
            lambda: all(is_picked_up_at_once(connection) for _ in range(8)),
            60,
            "new runs to be announced again",
        )


@pytest.mark.timeout(120)
def test_41_a_flood_that_came_while_the_steward_was_stopped_is_not_read_to_its_end(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    environ = {"REPROQ_LEASE": "30s", "POLL_INTERVAL": "500ms"}
    with Supervisor(database_url, tmp_path, workers=1, environ=environ) as supervisor:
        runs_go_on(connection, number=1)
        steward = psutil.Process(supervisor.steward_pid())
        with flood(database_url, tmp_path, "reproq_task_runs"):
            steward.suspend()
            wait_until(
                # A master takes a steward for dead that shows no sign of life for 20 s.
                lambda: (tmp_path / "flood-0").stat().st_size > 100,
                15,
                "two hundred thousand notifications to be sent",
            )
            size = steward.memory_info().rss
            steward.resume()
            renewed = connection.execute("select max(renewed_at) from reproq_workers").fetchone()
            wait_until(
                lambda: (
                    connection.execute("select max(renewed_at) from reproq_workers").fetchone() != renewed
                ),
                10,
                "a renewal",
            )
            runs_go_on(connection, number=3)
            assert steward.memory_info().rss - size < 16 * MIB
        assert supervisor.steward_pid() == steward.pid


@pytest.mark.timeout(120)
def test_41_locks_of_producers_and_observers_delay_no_run(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    with (
        every_lock(database_url, ("producer", "observer")) as taken,
        a_busy_host(database_url, connection, tmp_path) as supervisor,
    ):
        assert len([statement for statement in taken if "advisory" in statement]) == 3
        assert {statement.rpartition(" in ")[2] for statement in taken if "lock table" in statement} == {
            "access share mode"
        }
        runs_go_on(connection)
        leases_are_renewed(connection)
        with psycopg.connect(as_login(database_url, "producer"), autocommit=True) as producer:
            runs_go_on(producer, number=3)
        os.kill(_idle_workers(connection)[0][0], signal.SIGTERM)  # its successor registers, it leaves
        supervisor.wait_for_log("ended: exit status 0")
        supervisor.send(signal.SIGHUP)
        supervisor.wait_for_log("reloaded")
        runs_go_on(connection)


@pytest.mark.timeout(120)
def test_41_a_steward_does_not_wait_for_an_advisory_lock_and_new_runs_are_notified_after_it(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    keeps = "select pg_advisory_lock(7238251, hashtext('default'))"
    with psycopg.connect(as_login(database_url, "observer"), autocommit=True) as other:
        other.execute(keeps)
        with a_busy_host(database_url, connection, tmp_path, poll="1s") as supervisor:
            supervisor.wait_for_log("somebody keeps the advisory locks of queues")
            leases_are_renewed(connection)
            runs_go_on(connection, number=3)
            other.execute("select pg_advisory_unlock_all()")
            wait_until(
                lambda: all(is_picked_up_at_once(connection) for _ in range(8)),
                30,
                "new runs to be announced",
            )


@pytest.mark.timeout(120)
def test_41_two_hundred_thousand_waiters_keep_nobody_waiting(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    with a_busy_host(database_url, connection, tmp_path):
        run_id = add_run(connection, {"wait_for": str(tmp_path / "soon")})
        for waited, expires in ((run_id, "1 hour"), (0, "1 hour"), (0, "-1 hour"), (run_id, "-1 hour")):
            connection.execute(
                "insert into reproq_waiters select %s::bigint + case when %s = 0 then g else 0 end, %s || g, "
                "now() + %s::interval from generate_series(1, 50000) g",
                [waited, waited, f"w{expires}{waited}", expires],
            )
        leases_are_renewed(connection, times=4)
        (tmp_path / "soon").touch()
        assert wait_for_status(connection, run_id, "SUCCESSFUL")["claims"] == 1
        runs_go_on(connection)
        leases_are_renewed(connection)

        def waiters() -> int:
            row = connection.execute("select count(*) from reproq_waiters").fetchone()
            assert row is not None
            return int(row[0])

        wait_until(lambda: waiters() == 100_000, 60, "those whose time is over to be forgotten")


@pytest.mark.timeout(120)
def test_41_no_renewal_waits_for_dead_workers_to_be_reset(
    private_server: EmbeddedPostgres, tmp_path: Path
) -> None:
    """The server processes of dead workers do not end, so each reset takes two seconds: more than the lease."""
    with (
        psycopg.connect(private_server.url, autocommit=True) as connection,
        a_busy_host(private_server.url, connection, tmp_path, workers=7),
    ):
        leases_are_renewed(connection, times=1)
        rows = _idle_workers(connection)
        assert len(rows) == 6
        try:
            for pid, backend_pid in rows:
                os.kill(backend_pid, signal.SIGSTOP)
                os.kill(pid, signal.SIGKILL)
            holder = connection.execute("select leased_by from task_runs where status = 'RUNNING'").fetchone()

            def renewed() -> object:
                return connection.execute(
                    "select renewed_at from reproq_workers where id = %s and lease_expires_at > now()", holder
                ).fetchone()

            for _ in range(20):
                before = renewed()
                assert before is not None
                wait_until(lambda before=before: renewed() != before, 2, "the lease to be renewed")  # type: ignore[misc]
        finally:
            for _, backend_pid in rows:
                os.kill(backend_pid, signal.SIGCONT)


@pytest.mark.timeout(120)
def test_41_no_renewal_waits_for_a_reset_that_takes_longer_than_the_lease(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """By a trigger that somebody has put on the table. The run that it concerns is FAILED in the end."""
    with a_busy_host(database_url, connection, tmp_path):
        connection.execute(
            "create function be_slow() returns trigger language plpgsql as"
            " 'begin perform pg_sleep(4); return new; end';"
            "create trigger be_slow before update on task_runs for each row"
            " when (old.status = 'RUNNING' and new.status = 'PENDING') execute function be_slow()"
        )
        lost = add_run(
            connection,
            {},
            status="RUNNING",
            claims=1,
            attempts=1,
            max_attempts=3,
            leased_by="nobody",
            lease_expires_at=datetime.now(UTC),
            started_at=datetime.now(UTC),
            last_attempted_at=datetime.now(UTC),
        )
        leases_are_renewed(connection, times=40)
        wait_for_status(connection, lost, "FAILED", timeout_s=60)
