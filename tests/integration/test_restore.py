"""Dumps of the queue are restored: runs and specs arrive once, the sequence is right, an exit status is true."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from reproq_prefork import enqueue
from reproq_prefork.store.migrate import migrate
from reproq_prefork.store.migration_files import known_migrations
from tests.support.postgres.databases import new_database
from tests.support.postgres.postgres_programs import programs_for, run_program
from tests.support.postgres.servers import Server
from tests.support.rows.restores import (
    assert_arrived_once,
    assert_specs_and_sequence,
    give_a_past,
    marks_of,
    runs_of,
    specs_of,
)
from tests.support.supervisor.supervisor import Connection

NO_MIGRATIONS = "--exclude-table-data=*.reproq_schema_migrations"  # where no trigger passes them by


@dataclass(frozen=True)
class Original:
    url: str
    programs: Path
    directory: Path

    def dump(self, *options: str) -> Path:
        path = self.directory / "".join(["dump", *options]).replace("*", "")
        if not path.exists():
            done = run_program(self.programs, "pg_dump", *options, f"--file={path}", self.url)
            assert (done.returncode, done.stderr) == (0, "")
        return path

    def psql(self, dump: Path, url: str) -> tuple[int, str]:
        """As people do it: it goes on after an error, and exits with 0."""
        done = run_program(self.programs, "psql", "--no-psqlrc", "--quiet", url, stdin=dump.read_bytes())
        return done.returncode, done.stderr

    def pg_restore(self, dump: Path, url: str, *options: str) -> tuple[int, str]:
        done = run_program(self.programs, "pg_restore", *options, f"--dbname={url}", str(dump))
        return done.returncode, done.stderr


@pytest.fixture(scope="module")
def original(
    server: Server, template_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Original]:
    with new_database(server.url, template_url) as url:
        give_a_past(url)
        yield Original(url, programs_for(url), tmp_path_factory.mktemp("dumps"))


def assert_is_a_copy(url: str, *, registrations: int = 0) -> None:
    """With so many workers and waiters of the original."""
    assert marks_of(url) == (1, registrations, registrations)


# --- data only ---


def test_a_data_only_dump_is_restored_into_a_migrated_database_by_psql(
    original: Original, database_url: str
) -> None:
    assert original.psql(original.dump("--data-only"), database_url) == (0, "")
    assert_arrived_once(original.url, database_url)
    assert_is_a_copy(database_url)


def test_a_data_only_dump_with_inserts_is_restored_into_a_migrated_database(
    original: Original, database_url: str
) -> None:
    assert original.psql(original.dump("--data-only", "--column-inserts"), database_url) == (0, "")
    assert_arrived_once(original.url, database_url)
    assert_is_a_copy(database_url)


@pytest.mark.parametrize("how", [(), ("--single-transaction",), ("--exit-on-error",), ("--jobs=3",)], ids=str)
def test_a_data_only_dump_is_restored_into_a_migrated_database_by_pg_restore(
    original: Original, database_url: str, how: tuple[str, ...]
) -> None:
    dump = original.dump("--data-only", "--format=custom")
    assert original.pg_restore(dump, database_url, "--data-only", *how) == (0, "")
    assert_arrived_once(original.url, database_url)
    assert_is_a_copy(database_url)


def test_a_data_only_dump_is_restored_without_triggers_into_a_migrated_database(
    original: Original, database_url: str
) -> None:
    dump = original.dump("--data-only", "--format=custom", NO_MIGRATIONS)
    options = ("--data-only", "--disable-triggers", "--single-transaction")
    assert original.pg_restore(dump, database_url, *options) == (0, "")
    assert_arrived_once(original.url, database_url)
    assert_is_a_copy(database_url, registrations=1)


def test_without_triggers_only_the_migrations_are_an_error(original: Original, database_url: str) -> None:
    dump = original.dump("--data-only", "--format=custom")
    status, said = original.pg_restore(dump, database_url, "--data-only", "--disable-triggers")
    assert status == 1
    assert said.count("ERROR") == 1
    assert 'COPY failed for table "reproq_schema_migrations"' in said
    assert_arrived_once(original.url, database_url)


def test_specs_of_the_dump_may_come_after_the_runs(original: Original, database_url: str) -> None:
    """Several jobs restore the largest table first."""
    dump = original.dump("--data-only", "--format=custom")
    for table in ("task_runs", "reproq_specs"):
        assert original.pg_restore(dump, database_url, "--data-only", f"--table={table}") == (0, "")
    assert specs_of(database_url) == specs_of(original.url)
    assert runs_of(database_url) == runs_of(original.url)


def test_a_dump_of_the_runs_alone_restores_their_specs_and_the_sequence(
    original: Original, database_url: str
) -> None:
    assert original.psql(original.dump("--data-only", "--table=*.task_runs"), database_url) == (0, "")
    assert_arrived_once(original.url, database_url)
    assert marks_of(database_url) == (0, 0, 0)  # who names one table has said that they want its runs


def test_specs_left_without_runs_by_an_earlier_restore_block_no_run(
    original: Original, database_url: str, connection: Connection
) -> None:
    with connection.transaction():
        connection.execute("set local session_replication_role = replica")  # as before there was a trigger
        for row in specs_of(original.url):
            connection.execute("insert into reproq_specs values (%s, %s)", row)
    assert original.psql(original.dump("--data-only"), database_url) == (0, "")
    assert_arrived_once(original.url, database_url)


def test_existing_runs_stay_once_and_the_sequence_stays_ahead_after_adopting(
    original: Original, database_url: str, connection: Connection
) -> None:
    """The ids are the same, so all runs are refused, and psql sets the sequence back."""
    here = [enqueue(connection, {"here": number}).id for number in range(100)]
    status, said = original.psql(original.dump("--data-only"), database_url)
    assert (status, said.count("ERROR")) == (0, 1)
    assert "task_runs_pkey" in said
    assert list(runs_of(database_url)) == here
    connection.execute("select reproq_adopt()")
    assert_specs_and_sequence(database_url)


def test_a_second_restore_changes_nothing(original: Original, database_url: str) -> None:
    dump = original.dump("--data-only")
    original.psql(dump, database_url)
    assert "task_runs_pkey" in original.psql(dump, database_url)[1]
    assert_arrived_once(original.url, database_url)


def test_a_custom_program_can_declare_a_restore(database_url: str, connection: Connection) -> None:
    connection.execute("set reproq.restore = on")
    connection.execute("insert into reproq_schema_migrations (version, name) values (1, 'task_runs')")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match=r"migration 999 \(later\)"):
        connection.execute("insert into reproq_schema_migrations (version, name) values (999, 'later')")


# --- the schema of the dump is another one ---


def test_a_dump_of_a_newer_schema_does_not_make_an_older_one_look_newer(
    original: Original, database_url: str
) -> None:
    newest = known_migrations()[-1]
    migrate(database_url, known_migrations(), to=newest.version)
    dump = original.dump("--data-only").read_text()
    entry = f"{newest.version}\t{newest.name}\t"
    assert entry in dump
    later = original.directory / "later.sql"
    later.write_text(dump.replace(entry, f"{newest.version + 1}\tlater\t", 1))
    said = original.psql(later, database_url)[1]
    assert said.count("ERROR") == 1
    assert f"the dump is of a schema with migration {newest.version + 1} (later)" in said
    with psycopg.connect(database_url) as connection:
        versions = connection.execute("select max(version) from reproq_schema_migrations").fetchone()
    assert versions == (newest.version,)


def test_a_dump_of_other_files_is_an_error(original: Original, database_url: str) -> None:
    migrate(database_url, known_migrations())
    with psycopg.connect(database_url) as connection:
        connection.execute("update reproq_schema_migrations set checksum = repeat('0', 64) where version = 2")
        connection.execute("set reproq.restore = on")
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
            connection.execute(
                "insert into reproq_schema_migrations (version, name, checksum)"
                " values (2, 'workers', repeat('1', 64))"
            )


# --- everything ---


@pytest.mark.parametrize(
    "how", [(), ("--single-transaction",), ("--jobs=3",), ("--disable-triggers",)], ids=str
)
def test_a_full_dump_is_restored_into_an_empty_database(
    original: Original, empty_database_url: str, how: tuple[str, ...]
) -> None:
    assert original.pg_restore(original.dump("--format=custom"), empty_database_url, *how) == (0, "")
    assert_arrived_once(original.url, empty_database_url)
    assert_is_a_copy(empty_database_url, registrations=1)
    assert migrate(empty_database_url, known_migrations()) == ()


def test_a_full_dump_is_restored_into_an_empty_database_by_psql(
    original: Original, empty_database_url: str
) -> None:
    assert original.psql(original.dump(), empty_database_url) == (0, "")
    assert_arrived_once(original.url, empty_database_url)
    assert_is_a_copy(empty_database_url, registrations=1)


def test_a_full_dump_into_a_migrated_database_restores_each_run_once(
    original: Original, database_url: str
) -> None:
    """psql reports that each part of the schema exists, and exits with 0, its default."""
    status, said = original.psql(original.dump(), database_url)
    errors = [line for line in said.splitlines() if "ERROR" in line]
    assert status == 0
    assert all(
        "already exists" in line or "already an identity" in line or "multiple primary keys" in line
        for line in errors
    ), errors
    assert_arrived_once(original.url, database_url)
    assert_is_a_copy(database_url)


def test_a_full_dump_with_clean_replaces_the_existing_data(original: Original, database_url: str) -> None:
    dump = original.dump("--format=custom")
    assert original.pg_restore(dump, database_url, "--clean", "--if-exists", "--single-transaction") == (
        0,
        "",
    )
    assert_arrived_once(original.url, database_url)


def test_a_copy_of_a_database_that_never_had_a_master_is_recognised_too(
    server: Server, template_url: str, empty_database_url: str, tmp_path: Path
) -> None:
    with new_database(server.url, template_url) as url, psycopg.connect(url, autocommit=True) as connection:
        connection.execute("select reproq_adopt()")
        enqueue(connection, 1)
        unworked = Original(url, programs_for(url), tmp_path)
        assert unworked.psql(unworked.dump(), empty_database_url) == (0, "")
    assert_is_a_copy(empty_database_url)


def test_a_dump_of_the_schema_alone_is_not_a_copy(original: Original, empty_database_url: str) -> None:
    assert original.psql(original.dump("--schema-only"), empty_database_url) == (0, "")
    assert marks_of(empty_database_url) == (0, 0, 0)


def test_a_database_may_be_restored_from_its_own_dump(
    server: Server, template_url: str, tmp_path: Path
) -> None:
    """It is the same database, so nobody has to decide what becomes of the runs."""
    with new_database(server.url, template_url) as url:
        give_a_past(url)
        own = Original(url, programs_for(url), tmp_path)
        dump, before = own.dump("--data-only"), runs_of(url)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("truncate task_runs")
        assert own.psql(dump, url) == (0, "")
        assert runs_of(url) == before
        assert marks_of(url)[0] == 0
