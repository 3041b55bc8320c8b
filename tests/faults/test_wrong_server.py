"""Row 43 of the fault list: the server turns read-only, is demoted, or is another one, and sockets stay open."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from reproq_prefork.demo.postgres import EmbeddedPostgres
from tests.support.postgres.databases import apply_migrations
from tests.support.postgres.proxy import Proxy
from tests.support.postgres.replica import promote, replica_of
from tests.support.postgres.servers import embedded_server
from tests.support.supervisor.command_line import CommandLine
from tests.support.supervisor.supervisor import Connection, Supervisor, add_run, run_row, wait_for_status
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(120)

WORKERS = 2
SOON_S = 15.0  # "within seconds": a reconnect waits 5 s at most, and this machine may be busy
# Each process warns of the lost connection once, and once that it cannot have another.
MOST_WARNINGS = 2 * (WORKERS + 1)
TRIES = 8  # in vain, of all processes together: many more than warnings


def _warnings(supervisor: Supervisor) -> list[str]:
    return [line for line in supervisor.log().splitlines() if " WARN " in line or " ERROR" in line]


def _set_read_only(connection: Connection, to: str) -> None:
    """For every session of the server that has not set it itself, also those that there are."""
    connection.execute(f"alter system set default_transaction_read_only = {to}")
    connection.execute("select pg_reload_conf()")


@contextlib.contextmanager
def _writing(url: str) -> Iterator[Connection]:
    """A session that writes, whatever the default is."""
    options = "-c default_transaction_read_only=off"
    with psycopg.connect(url, autocommit=True, options=options) as connection:
        yield connection


def _ours(connection: Connection) -> int:
    """How many connections a server has of a supervisor."""
    row = connection.execute(
        "select count(*) from pg_stat_activity where application_name like 'reproq-prefork%'"
    ).fetchone()
    assert row is not None
    return int(row[0])


def test_43_a_connection_to_a_server_that_becomes_read_only_is_closed_and_its_return_is_noticed(
    private_server: EmbeddedPostgres, tmp_path: Path
) -> None:
    with (
        _writing(private_server.url) as connection,
        Supervisor(private_server.url, tmp_path, workers=WORKERS) as supervisor,
    ):
        wait_for_status(connection, add_run(connection, {}), "SUCCESSFUL")
        _set_read_only(connection, "on")
        wait_until(lambda: _ours(connection) == 0, SOON_S, "everybody to leave the server")
        run_id = add_run(connection, {})
        supervisor.wait_for_log("default_transaction_read_only is on", times=TRIES)
        assert run_row(connection, run_id)["status"] == "PENDING"
        assert len(_warnings(supervisor)) <= MOST_WARNINGS
        _set_read_only(connection, "off")
        wait_for_status(connection, run_id, "SUCCESSFUL", timeout_s=SOON_S)
        wait_until(lambda: _ours(connection) == WORKERS + 1, SOON_S, "everybody to come back")
        assert len(_warnings(supervisor)) <= MOST_WARNINGS
        assert supervisor.stop() == 0


def test_43_a_database_that_is_made_read_only_for_new_sessions_lets_the_old_ones_work_on(
    private_server: EmbeddedPostgres, tmp_path: Path
) -> None:
    with (
        _writing(private_server.url) as connection,
        Supervisor(private_server.url, tmp_path, workers=WORKERS) as supervisor,
    ):
        connection.execute("alter database postgres set default_transaction_read_only = on")
        wait_for_status(connection, add_run(connection, {}), "SUCCESSFUL")
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where application_name like 'reproq-prefork%'"
        )
        supervisor.wait_for_log("default_transaction_read_only is on", times=TRIES)
        assert len(_warnings(supervisor)) <= MOST_WARNINGS
        run_id = add_run(connection, {})
        connection.execute("alter database postgres reset default_transaction_read_only")
        wait_for_status(connection, run_id, "SUCCESSFUL", timeout_s=SOON_S)


def test_43_after_a_switchover_behind_one_name_all_processes_leave_the_old_primary(
    private_server: EmbeddedPostgres, tmp_path: Path
) -> None:
    """It keeps the sockets open, answers every read, and always answers that nothing is due."""
    with (
        replica_of(private_server) as replica,
        Proxy(private_server.url) as proxy,
        Supervisor(proxy.url, tmp_path, workers=WORKERS) as supervisor,
        _writing(private_server.url) as old,
    ):
        wait_for_status(old, add_run(old, {}), "SUCCESSFUL")
        busy = add_run(old, {"wait_for": str(tmp_path / "go")})
        wait_for_status(old, busy, "RUNNING")
        _set_read_only(old, "on")
        promote(replica)
        proxy.lead_to(replica.url)
        with psycopg.connect(replica.url, autocommit=True) as new:
            _set_read_only(
                new, "off"
            )  # it follows the file of the primary otherwise, if that was copied late
            run_id = add_run(new, {})
            wait_for_status(new, run_id, "SUCCESSFUL", timeout_s=SOON_S)
            (tmp_path / "go").touch()
            row = wait_for_status(new, busy, "SUCCESSFUL", timeout_s=SOON_S)
            assert (row["attempts"], row["claims"]) == (1, 1)
            wait_until(lambda: _ours(old) == 0, SOON_S, "everybody to leave the old primary")
            assert run_row(old, busy)["status"] == "RUNNING"
        assert len(_warnings(supervisor)) <= MOST_WARNINGS
        assert supervisor.stop() == 0


def test_43_a_standby_behind_the_name_is_not_used(private_server: EmbeddedPostgres, tmp_path: Path) -> None:
    with (
        replica_of(private_server) as replica,
        Proxy(private_server.url) as proxy,
        Supervisor(proxy.url, tmp_path, workers=WORKERS) as supervisor,
        psycopg.connect(private_server.url, autocommit=True) as connection,
    ):
        proxy.lead_to(replica.url)
        proxy.reset()
        supervisor.wait_for_log("it is a hot standby, which cannot be written to", times=TRIES)
        assert len(_warnings(supervisor)) <= MOST_WARNINGS
        proxy.lead_to(private_server.url)
        run_id = add_run(connection, {})
        wait_for_status(connection, run_id, "SUCCESSFUL", timeout_s=SOON_S)


@pytest.fixture
def other_server() -> Iterator[EmbeddedPostgres]:
    with embedded_server() as server:
        apply_migrations(server.url)
        yield server


def test_43_another_server_at_the_same_address_is_refused_until_a_reload_says_that_it_is_meant(
    private_server: EmbeddedPostgres, other_server: EmbeddedPostgres, tmp_path: Path
) -> None:
    with (
        Proxy(private_server.url) as proxy,
        Supervisor(proxy.url, tmp_path, workers=WORKERS) as supervisor,
        psycopg.connect(private_server.url, autocommit=True) as right,
        psycopg.connect(other_server.url, autocommit=True) as wrong,
    ):
        wait_for_status(right, add_run(right, {}), "SUCCESSFUL")
        not_ours = add_run(wrong, {})
        proxy.lead_to(other_server.url)
        proxy.reset()
        supervisor.wait_for_log("another server answers there now", times=TRIES)
        assert len(_warnings(supervisor)) <= MOST_WARNINGS
        assert run_row(wrong, not_ours)["claims"] == 0

        proxy.lead_to(private_server.url)
        run_id = add_run(right, {})
        wait_for_status(right, run_id, "SUCCESSFUL", timeout_s=SOON_S)
        assert run_row(wrong, not_ours)["claims"] == 0

        proxy.lead_to(other_server.url)
        supervisor.send(signal.SIGHUP)
        supervisor.wait_for_log(f"reloaded: {WORKERS} new workers are ready")
        supervisor.wait_for_log("the database is on another server now")
        wait_for_status(wrong, not_ours, "SUCCESSFUL", timeout_s=SOON_S)
        assert supervisor.stop() == 0


def test_43_a_server_without_an_identifier_is_accepted(
    private_server: EmbeddedPostgres, tmp_path: Path
) -> None:
    with psycopg.connect(private_server.url, autocommit=True) as connection:
        connection.execute("revoke execute on function pg_control_system() from public")
        with Supervisor(private_server.url, tmp_path, workers=1) as supervisor:
            wait_for_status(connection, add_run(connection, {}), "SUCCESSFUL")
            assert supervisor.stop() == 0


def test_43_a_right_that_is_revoked_later_stops_no_work(
    private_server: EmbeddedPostgres, tmp_path: Path
) -> None:
    with (
        psycopg.connect(private_server.url, autocommit=True) as connection,
        Supervisor(private_server.url, tmp_path, workers=1) as supervisor,
    ):
        connection.execute("revoke execute on function pg_control_system() from public")
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where application_name like 'reproq-prefork%'"
        )
        wait_for_status(connection, add_run(connection, {}), "SUCCESSFUL", timeout_s=SOON_S)
        assert supervisor.stop() == 0


def test_43_of_two_names_the_writable_server_is_used_without_an_option(
    private_server: EmbeddedPostgres, tmp_path: Path
) -> None:
    """The standby comes first, and the URL has no target_session_attrs."""
    with replica_of(private_server) as replica:
        place = private_server.url.rpartition("@")[2]
        first = replica.url.rpartition("@")[2].partition("/")[0]
        url = f"postgresql://postgres@{first},{place}"
        with (
            Supervisor(url, tmp_path, workers=1) as supervisor,
            psycopg.connect(private_server.url, autocommit=True) as connection,
        ):
            began_at = time.monotonic()
            wait_for_status(connection, add_run(connection, {}), "SUCCESSFUL")
            assert time.monotonic() - began_at < SOON_S
            assert supervisor.stop() == 0


def test_43_commands_that_only_read_work_on_a_standby_and_others_report_the_standby(
    private_server: EmbeddedPostgres, tmp_path: Path
) -> None:
    with psycopg.connect(private_server.url, autocommit=True) as connection:
        run_id = add_run(connection, {})
    with replica_of(private_server) as replica:
        command = CommandLine(tmp_path, replica.url)
        for reads in (["status"], ["migrate", "--status"], ["migrate", "--dry-run"]):
            command.output(*reads)
        assert f"run {run_id}: PENDING" in command.output("show", str(run_id))
        for writes in (
            ["cancel", str(run_id)],
            ["enqueue", "{}"],
            ["prune", "--older-than", "1d"],
            ["migrate"],
        ):
            said = command.run(*writes, status=6).stderr
            assert "it is a hot standby, which cannot be written to; name the primary" in said
