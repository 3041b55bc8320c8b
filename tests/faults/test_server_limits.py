"""Rows 24, 25, 33 and 35 of the fault list: a server that refuses, is full, or has another schema."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from reproq_prefork.demo.postgres import EmbeddedPostgres
from tests.support.postgres.databases import apply_migrations
from tests.support.supervisor.supervisor import Connection, Supervisor, add_run, diary, wait_for_status
from tests.support.waiting import wait_until

MIB = 1 << 20


def _database_of(url: str) -> sql.Identifier:
    return sql.Identifier(urlsplit(url).path.removeprefix("/"))


@pytest.mark.timeout(90)
def test_24_under_serializable_isolation_every_run_is_done_once(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    pages = tmp_path / "diary"
    connection.execute(
        sql.SQL("alter database {} set default_transaction_isolation = 'serializable'").format(
            _database_of(database_url)
        )
    )
    with Supervisor(database_url, tmp_path, workers=4) as supervisor:
        runs = [add_run(connection, {"diary": str(pages)}) for _ in range(150)]
        for run_id in runs:
            assert wait_for_status(connection, run_id, "SUCCESSFUL", timeout_s=40)["attempts"] == 1
        assert supervisor.stop() == 0
    assert Counter(run_id for what, run_id, *_ in diary(pages) if what == "start") == dict.fromkeys(runs, 1)


@pytest.mark.parametrize("code", ["40P01", "40001"], ids=["deadlock", "serialization"])
def test_24_a_statement_aborted_by_a_conflict_is_sent_again_and_charges_no_run(
    database_url: str, connection: Connection, tmp_path: Path, code: str
) -> None:
    pages = tmp_path / "diary"
    # A sequence is not rolled back, so only the first three tries fail.
    connection.execute(
        "create sequence tries;"
        "create function refuse() returns trigger language plpgsql security definer"
        " set search_path = public as $$ begin"
        f"  if nextval('tries') <= 3 then raise exception 'you are the victim' using errcode = '{code}'; end if;"
        "  return new;"
        "end $$;"
        "create trigger refuse before update on task_runs for each row"
        "  when (new.status = 'SUCCESSFUL') execute function refuse()"
    )
    with Supervisor(database_url, tmp_path, workers=1):
        run_id = add_run(connection, {"diary": str(pages)})
        row = wait_for_status(connection, run_id, "SUCCESSFUL", timeout_s=30)
        assert (row["attempts"], row["claims"], row["errors"]) == (1, 1, [])
    assert [what for what, *_ in diary(pages)] == ["start", "end"]


@contextmanager
def _a_role(connection: Connection, url: str) -> Iterator[tuple[str, str]]:
    """A role that may do all that a host needs, and is no superuser: its name, and the URL with it."""
    name = f"app_{os.urandom(4).hex()}"
    identifier = sql.Identifier(name)
    connection.execute(sql.SQL("create role {} login password 'app'").format(identifier))
    try:
        connection.execute(
            sql.SQL("grant select, insert, update, delete on all tables in schema public to {}").format(
                identifier
            )
        )
        connection.execute(sql.SQL("grant pg_signal_backend to {}").format(identifier))
        target = urlsplit(url)
        place = target.netloc.rpartition("@")[2]
        yield name, target._replace(netloc=f"{name}:app@{place}").geturl()
    finally:
        connection.execute(sql.SQL("drop owned by {}").format(identifier))
        connection.execute(sql.SQL("drop role {}").format(identifier))


def _limit_connections(connection: Connection, role: str, limit: int) -> None:
    connection.execute(
        sql.SQL("alter role {} connection limit {}").format(sql.Identifier(role), sql.Literal(limit))
    )


@pytest.mark.timeout(90)
def test_25_processes_with_a_connection_go_on_if_no_new_one_can_be_opened(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    with (
        _a_role(connection, database_url) as (role, url),
        Supervisor(url, tmp_path, workers=2, least_privilege=False) as supervisor,
    ):
        _limit_connections(connection, role, 1)
        first, second = supervisor.worker_pids()
        os.kill(first, 9)
        supervisor.wait_for_log("too many connections for role")
        wait_for_status(connection, add_run(connection, {}), "SUCCESSFUL")
        assert second in supervisor.worker_pids()
        _limit_connections(connection, role, -1)
        wait_until(lambda: len(supervisor.booted_worker_pids()) == 2, 40, "another worker in its place")
        assert supervisor.stop() == 0


def test_25_a_server_without_a_connection_to_spare_is_an_error_at_the_start(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    with _a_role(connection, database_url) as (role, url):
        _limit_connections(connection, role, 0)
        with Supervisor(
            url, tmp_path, environ={"REPROQ_BOOT_TIMEOUT": "1s"}, least_privilege=False
        ).starting() as supervisor:
            assert supervisor.wait() == 6
            assert "too many connections for role" in supervisor.log()


@pytest.fixture
def small_server() -> Iterator[EmbeddedPostgres]:
    """A server with connections for six."""
    settings = {"fsync": "off", "max_connections": "10", "superuser_reserved_connections": "4"}
    with EmbeddedPostgres(settings=settings) as server:
        apply_migrations(server.url)
        yield server


@pytest.mark.timeout(90)
def test_25_a_host_with_more_workers_than_connections_is_ready_with_those_that_have_one(
    small_server: EmbeddedPostgres, tmp_path: Path
) -> None:
    """Earlier, it was never ready, wrote ten warnings a second, and exited after three boot timeouts."""
    workers, patience = 10, {"REPROQ_BOOT_TIMEOUT": "3s"}
    with (
        psycopg.connect(small_server.url, autocommit=True) as connection,
        Supervisor(small_server.url, tmp_path, workers=workers, environ=patience).starting() as supervisor,
    ):
        supervisor.wait_for_log("of 10 workers; the others wait for a connection to the database")
        ready = int(supervisor.log().partition("ready: ")[2].split()[0])
        assert 3 <= ready <= 5  # the steward has one, and this test
        for _ in range(5):  # boot timeouts and more
            tries = supervisor.log().count("remaining connection slots are reserved")
            supervisor.wait_for_log("remaining connection slots are reserved", times=tries + 10)
            wait_for_status(connection, add_run(connection, {}), "SUCCESSFUL")
        warnings = [line for line in supervisor.log().splitlines() if " WARN " in line or " ERROR" in line]
        # One of each worker that waits, or had to at first, and one of the master.
        assert max(Counter(line[25:].partition(": ")[0] for line in warnings).values()) == 1, warnings
        assert len(warnings) > workers - ready
        supervisor.send(signal.SIGTTOU)
        supervisor.wait_for_log("the number of workers is now 9")
        assert supervisor.stop() == 0


@contextmanager
def _server_on_a_small_disk() -> Iterator[tuple[EmbeddedPostgres, Path]]:
    # Not below the directory of the test, which the account of the server may not enter.
    directory = Path(tempfile.mkdtemp(prefix="reproq-small-disk-"))
    directory.chmod(0o755)
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=200m", "none", str(directory)],
            check=True,
            capture_output=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no small disk can be mounted here: {getattr(error, 'stderr', error)}")
    try:
        with EmbeddedPostgres(directory / "data", settings={"fsync": "off"}) as server:
            apply_migrations(server.url)
            yield server, directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)
        directory.rmdir()


@pytest.mark.timeout(120)
def test_33_a_full_disk_is_waited_out_and_nothing_is_lost(tmp_path: Path) -> None:
    pages = tmp_path / "diary"
    dice = random.Random(1)
    with (
        _server_on_a_small_disk() as (server, disk),
        Supervisor(server.url, tmp_path, workers=1) as supervisor,
        psycopg.connect(server.url, autocommit=True) as connection,
    ):
        # The result has no room; the log of the server has, in a segment that is there already.
        value = dice.randbytes(300_000).hex()
        run_id = add_run(connection, {"wait_for": str(tmp_path / "go"), "value": value, "diary": str(pages)})
        wait_for_status(connection, run_id, "RUNNING")
        connection.execute("checkpoint")
        connection.execute("select pg_switch_wal()")
        connection.execute("create table room (n int); insert into room values (1)")
        with (disk / "filler").open("wb", buffering=0) as filler:
            _fill(filler.fileno())
            (tmp_path / "go").touch()
            supervisor.wait_for_log("No space left on device", timeout_s=30)
        (disk / "filler").unlink()
        row = wait_for_status(connection, run_id, "SUCCESSFUL", timeout_s=40)
        assert (row["attempts"], row["claims"]) == (1, 1)
        assert row["result"]["echo"] == value
    assert [what for what, *_ in diary(pages)] == ["start", "end"]


def _fill(fd: int) -> None:
    for size in (MIB, 4096):
        while True:
            try:
                os.write(fd, bytes(size))
            except OSError:
                break


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            "insert into reproq_schema_migrations (version, name) values (9999, 'later')",
            "Install a newer release",
        ),
        ("update reproq_schema_migrations set checksum = repeat('0', 64) where version = 2", "0002_workers"),
        ("delete from reproq_schema_migrations where version = 4", "reproq-prefork migrate"),
    ],
    ids=["newer", "tampered", "older"],
)
def test_35_another_schema_is_refused_at_the_start(
    database_url: str, connection: Connection, tmp_path: Path, change: str, said: str
) -> None:
    connection.execute(change.encode())
    with Supervisor(database_url, tmp_path).starting() as supervisor:
        assert supervisor.wait() == 7
        assert said in supervisor.log()
