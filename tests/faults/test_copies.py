"""Row 50 of the fault list: a dump is restored into a live schema, and copies for staging."""

from __future__ import annotations

import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from reproq_prefork.demo.postgres import EmbeddedPostgres
from reproq_prefork.demo.postgres_programs import PostgresPrograms, log_tail
from reproq_prefork.errors import ExitStatus
from tests.support.postgres.databases import PASSWORD, apply_migrations, new_database
from tests.support.postgres.postgres_programs import programs_for, run_program
from tests.support.postgres.replica import promote, replica_of
from tests.support.postgres.servers import Server, embedded_server
from tests.support.rows.restores import assert_specs_and_sequence, give_a_past, marks_of, runs_of, statuses_of
from tests.support.rows.stores import worker_store
from tests.support.supervisor.command_line import CommandLine
from tests.support.supervisor.supervisor import (
    Connection,
    Supervisor,
    add_run,
    diary,
    run_row,
    wait_for_status,
)
from tests.support.unix.memory import shared_memory
from tests.support.waiting import wait_until

DUE = 20
COPY = "is a copy: its runs came from the database"


@pytest.fixture
def original_url(server: Server, template_url: str, tmp_path: Path) -> Iterator[str]:
    """A database that has had a worker, with due runs that nobody has begun."""
    with new_database(server.url, template_url) as url:
        worker_store(url).close()
        with psycopg.connect(url, autocommit=True) as connection:
            for number in range(DUE):
                add_run(connection, {"number": number, "diary": str(tmp_path / "diary")})
        yield url


def started(directory: Path) -> Counter[int]:
    """How often each run was started."""
    return Counter(run_id for what, run_id, *_ in diary(directory / "diary") if what == "start")


def restore_data(original_url: str, target_url: str, directory: Path, *options: str) -> None:
    programs = programs_for(original_url)
    dump = directory / "data.dump"
    for name, arguments in {
        "pg_dump": ["--data-only", "--format=custom", f"--file={dump}", original_url],
        "pg_restore": ["--data-only", *options, f"--dbname={target_url}", str(dump)],
    }.items():
        done = run_program(programs, name, *arguments)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("how", [(), ("--single-transaction",)], ids=str)
def test_50_runs_restored_under_a_live_master_arrive_once_and_are_not_executed_before_adoption(
    original_url: str, database_url: str, connection: Connection, tmp_path: Path, how: tuple[str, ...]
) -> None:
    with Supervisor(database_url, tmp_path) as supervisor:
        wait_for_status(connection, add_run(connection, {}), "SUCCESSFUL")
        connection.execute("truncate task_runs restart identity")
        restore_data(original_url, database_url, tmp_path, *how)
        assert runs_of(database_url) == runs_of(original_url)
        assert_specs_and_sequence(database_url)
        wait_until(lambda: marks_of(database_url)[:2] == (1, 0), 10, "all registrations to be gone")
        supervisor.wait_for_log(COPY, times=4)  # workers and steward have tried again
        supervisor.send(signal.SIGHUP)
        supervisor.wait_for_log("reload refused, nothing has changed: The database")
        assert not started(tmp_path)
        assert statuses_of(database_url) == {"PENDING": DUE}
        CommandLine(tmp_path, database_url).output("adopt", "--keep-unfinished")
        wait_until(lambda: statuses_of(database_url) == {"SUCCESSFUL": DUE}, 30, "all to be done")
        assert supervisor.stop() == 0
    assert started(tmp_path) == dict.fromkeys(runs_of(original_url), 1)


def test_50_a_copy_for_staging_executes_no_run_of_production(
    original_url: str, empty_database_url: str, tmp_path: Path
) -> None:
    programs = programs_for(original_url)
    dump = tmp_path / "all.sql"
    assert run_program(programs, "pg_dump", f"--file={dump}", original_url).returncode == 0
    done = run_program(programs, "psql", "-Xq", empty_database_url, stdin=dump.read_bytes())
    assert (done.returncode, done.stderr) == (0, "")
    refused = Supervisor(empty_database_url, tmp_path)
    with refused.starting():
        assert refused.wait() == ExitStatus.DATABASE_IS_COPY
        assert COPY in refused.log()
    CommandLine(tmp_path, empty_database_url).output("adopt", "--cancel-unfinished")
    with (
        psycopg.connect(empty_database_url, autocommit=True) as connection,
        Supervisor(empty_database_url, tmp_path),
    ):
        wait_for_status(connection, add_run(connection, {}), "SUCCESSFUL")
    assert statuses_of(empty_database_url) == {"CANCELLED": DUE, "SUCCESSFUL": 1}
    assert not started(tmp_path)
    assert statuses_of(original_url) == {"PENDING": DUE}


def test_50_a_restore_without_triggers_under_a_live_master_is_noticed(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    with Supervisor(database_url, tmp_path) as supervisor:
        with connection.transaction():
            connection.execute("set local session_replication_role = replica")
            connection.execute(
                "insert into reproq_database (database_oid, table_oid, database_name) values (1, 1, 'another')"
            )
        wait_until(lambda: marks_of(database_url)[:2] == (1, 0), 10, "all registrations to be gone")
        waits = add_run(connection, {})
        supervisor.wait_for_log(COPY, times=4)
        assert run_row(connection, waits)["status"] == "PENDING"
        CommandLine(tmp_path, database_url).output("adopt", "--keep-unfinished")
        wait_for_status(connection, waits, "SUCCESSFUL")
        assert supervisor.stop() == 0


def test_50_workers_whose_database_is_replaced_by_a_copy_change_nothing_in_it(
    server: Server, template_url: str, tmp_path: Path
) -> None:
    """The databases are renamed while workers run. A result is recorded in the database of its claim."""
    go = tmp_path / "go"
    with ExitStack() as stack:
        url = stack.enter_context(new_database(server.url, template_url))
        copy_url = stack.enter_context(new_database(server.url))
        administrator = stack.enter_context(psycopg.connect(server.url, autocommit=True))
        supervisor = stack.enter_context(Supervisor(url, tmp_path, workers=1))
        with psycopg.connect(url, autocommit=True) as connection:
            run_id = add_run(connection, {"wait_for": str(go), "diary": str(tmp_path / "diary")})
            waits = add_run(connection, {"diary": str(tmp_path / "diary")})
            wait_until(lambda: started(tmp_path), 10, "the first to start")
        programs = programs_for(url)
        dump = tmp_path / "all.dump"
        assert run_program(programs, "pg_dump", "-Fc", f"--file={dump}", url).returncode == 0
        assert run_program(programs, "pg_restore", f"--dbname={copy_url}", str(dump)).returncode == 0
        before = runs_of(copy_url)
        names = [urlsplit(each).path[1:] for each in (url, copy_url)]

        swap(administrator, *names)
        supervisor.wait_for_log(COPY)
        go.touch()
        supervisor.wait_for_log(COPY, times=4)
        assert runs_of(url) == before  # which is the copy now
        swap(administrator, *names)

        with psycopg.connect(url, autocommit=True) as connection:
            assert wait_for_status(connection, run_id, "SUCCESSFUL")["attempts"] == 1
            wait_for_status(connection, waits, "SUCCESSFUL")
        assert supervisor.stop() == 0
    assert started(tmp_path) == {run_id: 1, waits: 1}


def swap(administrator: Connection, name: str, other: str) -> None:
    """Each database gets the name of the other; nobody stays connected."""
    for database, new_name in ((name, f"{name}_aside"), (other, name), (f"{name}_aside", other)):
        first, second = sql.Identifier(database), sql.Identifier(new_name)
        administrator.execute(sql.SQL("alter database {} with allow_connections false").format(first))
        administrator.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = %s", [database]
        )
        administrator.execute(sql.SQL("alter database {} rename to {}").format(first, second))
    for database in (name, other):
        administrator.execute(
            sql.SQL("alter database {} with allow_connections true").format(sql.Identifier(database))
        )


def test_50_a_dump_from_another_server_is_recognised_by_the_server_identifier(
    original_url: str, tmp_path: Path
) -> None:
    """The database may have the same oid there, for example 5 (`postgres`)."""
    with embedded_server() as first, embedded_server() as second:
        apply_migrations(first.url)
        worker_store(first.url).close()
        programs = programs_for(first.url)
        dump = tmp_path / "all.dump"
        assert run_program(programs, "pg_dump", "-Fc", "-x", f"--file={dump}", first.url).returncode == 0
        assert run_program(programs, "pg_restore", f"--dbname={second.url}", str(dump)).returncode == 0
        assert marks_of(first.url)[0] == 0
        assert marks_of(second.url)[0] == 1


def test_50_without_a_server_identifier_a_copy_is_recognised_by_its_oid(tmp_path: Path) -> None:
    """As on a managed server."""
    with embedded_server() as server, psycopg.connect(server.url, autocommit=True) as administrator:
        administrator.execute(f"create role owner login password '{PASSWORD}'")
        administrator.execute("create database app owner owner")
        with psycopg.connect(urlsplit(server.url)._replace(path="/app").geturl()) as within:
            within.execute("revoke execute on function pg_control_system() from public")
        place = urlsplit(server.url).netloc.rpartition("@")[2]
        url = f"postgresql://owner:{PASSWORD}@{place}/app"
        CommandLine(tmp_path, url).run("migrate", status=0)
        worker_store(url).close()
        assert marks_of(url)[0] == 0
        administrator.execute("create database copy template app owner owner")
        copy_url = f"postgresql://owner:{PASSWORD}@{place}/copy"
        assert marks_of(copy_url)[0] == 1
        cli = CommandLine(tmp_path, copy_url)
        said = cli.run(
            "check", environ={"EXECUTOR_COMMAND": "true"}, status=ExitStatus.DATABASE_IS_COPY
        ).stdout
        assert "of server" not in said
        cli.output("adopt", "--keep-unfinished")
        worker_store(copy_url).close()


def test_50_a_promoted_replica_is_not_a_copy(tmp_path: Path) -> None:
    """A snapshot of a server is not a copy either. For staging, adopt it before a master starts there."""
    with embedded_server() as primary:
        apply_migrations(primary.url)
        give_a_past(primary.url)
        with replica_of(primary) as replica:
            promote(replica)
            wait_until(lambda: not _is_in_recovery(replica.url), 20, "the replica to be promoted")
            assert marks_of(replica.url)[0] == 0
            cli = CommandLine(tmp_path, replica.url)
            said = cli.run("adopt", "--cancel-unfinished", "--yes", status=ExitStatus.FAILURE).stderr
            assert "has 1 live worker" in said  # for all that is known: its lease has not ended
            with psycopg.connect(replica.url, autocommit=True) as connection:
                connection.execute("update reproq_workers set lease_expires_at = now()")
            cli.output("adopt", "--cancel-unfinished", "--yes")
            assert statuses_of(replica.url).keys() == {"SUCCESSFUL", "CANCELLED"}
        assert statuses_of(primary.url).keys() == {"SUCCESSFUL", "RUNNING", "PENDING"}


def _is_in_recovery(url: str) -> bool:
    with psycopg.connect(url) as connection:
        return connection.execute("select pg_is_in_recovery()").fetchone() == (True,)


def test_50_the_databases_of_an_upgraded_server_must_be_adopted(tmp_path: Path) -> None:
    """pg_upgrade gives the server another identifier, and restores the schema from a dump."""
    with tempfile.TemporaryDirectory(prefix="reproq-tests-", dir=shared_memory()) as name:
        top = Path(name)
        top.chmod(0o755)
        before, after = (top / "before", PostgresPrograms(16)), (top / "after", PostgresPrograms(18))
        with EmbeddedPostgres(before[0], version=16, settings={"fsync": "off"}) as server:
            apply_migrations(server.url)
            give_a_past(server.url)
        upgrade(before, after)
        with EmbeddedPostgres(after[0], version=18, settings={"fsync": "off"}) as server:
            assert marks_of(server.url)[0] == 1
            CommandLine(tmp_path, server.url).output("adopt", "--keep-unfinished")
            assert_specs_and_sequence(server.url)
            worker_store(server.url).close()


def upgrade(before: tuple[Path, PostgresPrograms], after: tuple[Path, PostgresPrograms]) -> None:
    """Each is a home and programs. The home `after` is made, with the password of the other."""
    (old, old_programs), (new, new_programs) = before, after
    new.mkdir()
    (new / "sockets").mkdir()
    (new / "password").touch(0o600)
    (new / "password").write_text((old / "password").read_text())
    new_programs.adopt(new)
    made = [*("-D", "data", "--username=postgres", "--auth=scram-sha-256", "--pwfile=password", "--no-sync")]
    made += ["--encoding=UTF8", "--locale=C.UTF-8", "--no-data-checksums"]
    assert new_programs.spawn("initdb", made, new).wait(60) == 0, log_tail(new)
    for home in (old, new):
        rules = home / "data" / "pg_hba.conf"
        rules.write_text(f"local all all trust\n{rules.read_text()}")
    moved = [
        "-b",
        str(old_programs.directory),
        "-B",
        str(new_programs.directory),
        "-U",
        "postgres",
        "--no-sync",
    ]
    moved += ["-d", str(old / "data"), "-D", str(new / "data"), "--socketdir", str(new / "sockets")]
    assert new_programs.spawn("pg_upgrade", moved, new).wait(60) == 0, log_tail(new)
