"""Three ways to the same schema, and what keeps them apart from a half-done or a foreign one."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from reproq_prefork.errors import DatabaseUnavailable, SchemaMismatch, SettingsError
from reproq_prefork.settings.resolve import resolve
from reproq_prefork.settings.sources import Sources
from reproq_prefork.store.migrate import (
    MigrationFailed,
    check_database,
    migrate,
    migration_states,
    pending_steps,
)
from reproq_prefork.store.migration_files import Migration, known_migrations
from reproq_prefork.store.migration_plan import Direction
from tests.support.postgres.catalogue import catalogue
from tests.support.postgres.databases import MIGRATIONS, apply_migrations
from tests.support.waiting import wait_until

KNOWN = known_migrations()
NEWEST = KNOWN[-1].version


def versions(url: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(
            "select version, name, checksum from reproq_schema_migrations order by version"
        ).fetchall()


def execute(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


def check(url: str) -> None:
    sources = Sources({"database_url": url}, {}, Path.cwd())
    check_database(resolve(sources, hostname="host", now=datetime.now(UTC), cpu_count=1).settings)


def test_psql_and_migrate_leave_the_same_schema(empty_database_url: str, database_url: str) -> None:
    psql = shutil.which("psql")
    if psql is None:
        pytest.skip("psql is not installed")
    files = b"".join(path.read_bytes() for path in sorted(MIGRATIONS.glob("*.up.sql")))
    command = [psql, "-v", "ON_ERROR_STOP=1", "--no-psqlrc", "-q", empty_database_url]
    subprocess.run(command, input=files, check=True, timeout=30)
    by_psql = catalogue(empty_database_url)
    subprocess.run(command, input=files, check=True, timeout=30)
    assert catalogue(empty_database_url) == by_psql

    migrate(database_url, KNOWN, to=0)
    assert catalogue(database_url) == []
    migrate(database_url, KNOWN)
    assert catalogue(database_url) == by_psql
    assert {row[0] for row in by_psql} == {
        "table",
        "column",
        "constraint",
        "index",
        "trigger",
        "function",
        "right",
        "type",
    }


def test_migrate_records_the_checksum_of_each_file(empty_database_url: str) -> None:
    migrate(empty_database_url, KNOWN)
    assert versions(empty_database_url) == [(each.version, each.name, each.checksum) for each in KNOWN]


def test_a_second_migrate_changes_nothing(empty_database_url: str) -> None:
    done: list[str] = []
    migrate(empty_database_url, KNOWN, report=lambda step: done.append(step.migration.label))
    assert done == [each.label for each in KNOWN]
    before = (catalogue(empty_database_url), versions(empty_database_url))
    done.clear()
    migrate(empty_database_url, KNOWN, report=lambda step: done.append(step.migration.label))
    assert done == []
    assert (catalogue(empty_database_url), versions(empty_database_url)) == before


def test_a_schema_goes_up_and_down_one_version_at_a_time(empty_database_url: str, database_url: str) -> None:
    for version in range(1, NEWEST + 1):
        migrate(empty_database_url, KNOWN, to=version)
        assert len(versions(empty_database_url)) == version
    assert catalogue(empty_database_url) == catalogue(database_url)
    for version in range(NEWEST - 1, 0, -1):
        migrate(empty_database_url, KNOWN, to=version)
        assert len(versions(empty_database_url)) == version
    migrate(empty_database_url, KNOWN, to=0)
    assert catalogue(empty_database_url) == []


def test_an_upgrade_keeps_the_runs(empty_database_url: str) -> None:
    migrate(empty_database_url, KNOWN, to=1)
    execute(empty_database_url, "insert into task_runs (payload, spec_hash) values ('{}', repeat('0', 64))")
    migrate(empty_database_url, KNOWN)
    with psycopg.connect(empty_database_url) as connection:
        assert connection.execute("select count(*) from task_runs").fetchall() == [(1,)]


def test_migrations_that_psql_applied_are_accepted(empty_database_url: str) -> None:
    apply_migrations(empty_database_url)
    assert {checksum for _, _, checksum in versions(empty_database_url)} == {None}
    before = catalogue(empty_database_url)
    migrate(empty_database_url, KNOWN)
    assert versions(empty_database_url) == [(each.version, each.name, each.checksum) for each in KNOWN]
    assert catalogue(empty_database_url) == before


def test_two_migrators_at_the_same_time_do_the_work_once(empty_database_url: str) -> None:
    done: list[int] = []
    failures: list[BaseException] = []
    start = threading.Barrier(8)

    def one() -> None:
        try:
            start.wait(10)
            migrate(empty_database_url, KNOWN, report=lambda step: done.append(step.migration.version))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failures
    assert sorted(done) == [each.version for each in KNOWN]


def test_a_migrator_waits_for_another_longer_than_any_statement_may_take(empty_database_url: str) -> None:
    waiter = threading.Thread(target=migrate, args=(empty_database_url, KNOWN))
    with (
        psycopg.connect(empty_database_url) as holder,
        psycopg.connect(empty_database_url, autocommit=True) as watcher,
    ):
        holder.execute("select pg_advisory_xact_lock(7238251986031521)")
        waiter.start()

        def waited_s() -> float:
            row = watcher.execute(
                "select extract(epoch from now() - query_start)::float8 from pg_stat_activity "
                "where wait_event = 'advisory' and datname = current_database()"
            ).fetchone()
            return float(row[0]) if row else 0.0

        # Ordinary connections give up a lock after 2 s.
        wait_until(lambda: waited_s() > 2.5, 10, "the migrator to wait for longer than a lock_timeout")
    waiter.join(10)
    assert len(versions(empty_database_url)) == len(KNOWN)


def test_a_file_that_fails_leaves_the_version_before_it(empty_database_url: str) -> None:
    broken = Migration(NEWEST + 1, "broken", "create table half (); select 1 / 0", "", "0" * 64)
    with pytest.raises(MigrationFailed, match=rf"apply migration {broken.label}.*division by zero"):
        migrate(empty_database_url, [*KNOWN, broken])
    assert len(versions(empty_database_url)) == len(KNOWN)
    assert "half" not in str(catalogue(empty_database_url))


def test_a_migration_does_not_wait_long_for_a_table_in_use(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reproq_prefork.store.migrate.MIGRATION_LOCK_TIMEOUT_S", 1)
    with psycopg.connect(database_url) as busy:
        busy.execute("lock table reproq_workers in access share mode")
        with pytest.raises(MigrationFailed, match="lock timeout"):
            migrate(database_url, KNOWN, to=1)


def test_a_changed_file_is_refused_in_every_direction(database_url: str) -> None:
    migrate(database_url, KNOWN)
    changed = [
        KNOWN[0],
        replace(KNOWN[1], up=KNOWN[1].up + "-- a word more\n", checksum="0" * 64),
        *KNOWN[2:],
    ]
    for target in range(NEWEST + 1):
        with pytest.raises(SchemaMismatch, match=r"other files.*0002_workers\.") as caught:
            migrate(database_url, changed, to=target)
        assert caught.value.tampered == ("0002_workers",)
    assert [state.changed for state in migration_states(database_url, changed)] == [
        False,
        True,
        *[False] * (NEWEST - 2),
    ]


def test_a_database_of_a_newer_release_is_left_alone(database_url: str) -> None:
    execute(database_url, "insert into reproq_schema_migrations (version, name) values (99, 'later')")
    before = catalogue(database_url)
    for target in (None, 0):
        with pytest.raises(SchemaMismatch, match=rf"version 99; this release knows up to {NEWEST}"):
            migrate(database_url, KNOWN, to=target)
    assert catalogue(database_url) == before
    assert [state.known for state in migration_states(database_url, KNOWN)] == [True] * NEWEST + [False]


def test_a_version_that_is_not_there_is_refused(empty_database_url: str) -> None:
    with pytest.raises(SettingsError, match=rf"--to: there is no version 99; give one from 0 to {NEWEST}"):
        migrate(empty_database_url, KNOWN, to=99)


def test_pending_steps_are_reported_without_applying_them(empty_database_url: str) -> None:
    steps = pending_steps(empty_database_url, KNOWN)
    assert [(step.migration.version, step.direction) for step in steps] == [
        (each.version, Direction.UP) for each in KNOWN
    ]
    assert catalogue(empty_database_url) == []
    migrate(empty_database_url, KNOWN)
    steps = pending_steps(empty_database_url, KNOWN, to=0)
    assert [(step.migration.version, step.direction) for step in steps] == [
        (each.version, Direction.DOWN) for each in reversed(KNOWN)
    ]


def test_each_migration_shows_when_it_was_applied(empty_database_url: str) -> None:
    migrate(empty_database_url, KNOWN, to=1)
    first, second = migration_states(empty_database_url, KNOWN)[:2]
    assert first.applied_at is not None
    assert first.applied_at.tzinfo is not None
    assert second.applied_at is None


def test_a_start_needs_this_schema(empty_database_url: str) -> None:
    with pytest.raises(SchemaMismatch, match=r"no reproq schema.*`reproq-prefork migrate`"):
        check(empty_database_url)
    migrate(empty_database_url, KNOWN, to=1)
    with pytest.raises(SchemaMismatch, match=f"schema version 1; this release needs version {NEWEST}"):
        check(empty_database_url)
    migrate(empty_database_url, KNOWN)
    check(empty_database_url)
    execute(empty_database_url, "insert into reproq_schema_migrations (version, name) values (99, 'later')")
    with pytest.raises(SchemaMismatch, match="Install a newer release"):
        check(empty_database_url)


@pytest.mark.parametrize(
    ("works_with_since", "accepted"),
    [
        ((NEWEST,), True),
        ((1,), True),
        ((NEWEST, NEWEST), True),
        ((None,), False),
        ((NEWEST + 1,), False),
        ((NEWEST, NEWEST + 1), False),
        ((None, NEWEST), False),
    ],
)
def test_a_newer_schema_is_accepted_if_each_newer_migration_allows_it(
    database_url: str, works_with_since: tuple[int | None, ...], accepted: bool
) -> None:
    migrate(database_url, KNOWN)
    later_migrations(database_url, works_with_since)
    before = versions(database_url)
    if accepted:
        check(database_url)
        assert migrate(database_url, KNOWN) == ()
    else:
        with pytest.raises(SchemaMismatch, match="Install a newer release"):
            check(database_url)
        with pytest.raises(SchemaMismatch, match="Install a newer release"):
            migrate(database_url, KNOWN)
    assert versions(database_url) == before


def test_an_older_release_never_reverses_an_unknown_migration(database_url: str) -> None:
    later_migrations(database_url, (NEWEST,))
    for target in (0, NEWEST):
        with pytest.raises(SchemaMismatch, match="Install a newer release"):
            migrate(database_url, KNOWN, to=target)


def test_a_changed_file_is_refused_under_a_newer_schema_too(database_url: str) -> None:
    migrate(database_url, KNOWN)
    later_migrations(database_url, (NEWEST,))
    changed = [replace(KNOWN[0], checksum="0" * 64), *KNOWN[1:]]
    with pytest.raises(SchemaMismatch, match="other files"):
        migrate(database_url, changed)


def later_migrations(url: str, works_with_since: tuple[int | None, ...]) -> None:
    """As newer releases leave them."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "alter table reproq_schema_migrations add column if not exists works_with_since integer"
        )
        for version, since in enumerate(works_with_since, NEWEST + 1):
            connection.execute(
                "insert into reproq_schema_migrations (version, name, works_with_since)"
                " values (%s, 'later', %s)",
                [version, since],
            )


def test_a_server_that_only_reads_is_refused(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        name = connection.info.dbname
    execute(database_url, f'alter database "{name}" set default_transaction_read_only = on')
    with pytest.raises(DatabaseUnavailable, match="default_transaction_read_only is on"):
        check(database_url)
    with pytest.raises(DatabaseUnavailable, match="default_transaction_read_only is on"):
        migrate(database_url, KNOWN)


def test_a_role_that_may_not_read_the_schema_gets_an_error_that_says_so(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        role = connection.info.dbname + "_reader"
    execute(database_url, f'create role "{role}"')
    try:
        with pytest.raises(DatabaseUnavailable, match="permission denied"):
            check(make_conninfo(database_url, options=f"-c role={role}"))
    finally:
        execute(database_url, f'drop role "{role}"')


def test_a_wheel_brings_the_migrations(tmp_path: Path) -> None:
    root = MIGRATIONS.parent
    isolation = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", *isolation, "-w", str(tmp_path)]
    built = subprocess.run([*command, str(root)], capture_output=True, text=True, timeout=50)
    if built.returncode and not isolation and "hatchling" in built.stderr:
        pytest.skip("the build backend is not installed, and no package index answers")
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    assert known_migrations([tmp_path / "site/reproq_prefork/migrations"]) == KNOWN
