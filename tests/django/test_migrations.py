"""Django's `migrate` is one more way to the same schema; the models describe it and nothing else."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.management import call_command
from django.db import connection, connections
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations import SeparateDatabaseAndState
from django.test import override_settings
from django.test.utils import setup_databases, teardown_databases

from reproq_prefork.django.models import TaskRun, Worker
from reproq_prefork.django.sql_file import ApplySqlFile
from reproq_prefork.settings.resolve import resolve
from reproq_prefork.settings.sources import Sources
from reproq_prefork.store.migrate import check_database, migrate
from reproq_prefork.store.migration_files import known_migrations
from tests.support.django.databases import pointed_at
from tests.support.postgres.catalogue import catalogue
from tests.support.postgres.databases import apply_migrations

KNOWN = known_migrations()
LABELS = [each.label for each in KNOWN]


def own_catalogue(url: str) -> list[tuple[Any, ...]]:
    """What is there but for the tables of Django's own."""
    return [
        row
        for row in catalogue(url)
        if not any(isinstance(value, str) and "django_migrations" in value for value in row)
    ]


def our_migrations() -> list[str]:
    return sorted(name for app, name in MigrationLoader(None).disk_migrations if app == "reproq_prefork")


def elsewhere(url: str) -> Any:
    """TASKS whose backend uses another database than the default one."""
    return override_settings(
        TASKS={
            "default": {
                "BACKEND": "reproq_prefork.django.ReproqBackend",
                "OPTIONS": {"database": "elsewhere"},
            }
        }
    )


def test_every_sql_migration_is_a_migration_of_django() -> None:
    assert our_migrations() == LABELS
    for label in LABELS:
        (operation,) = MigrationLoader(None).disk_migrations["reproq_prefork", label].operations
        assert isinstance(operation, SeparateDatabaseAndState)
        (apply,) = operation.database_operations
        assert isinstance(apply, ApplySqlFile)
        assert apply.label == label


def test_django_makes_the_schema_of_the_sql_files(empty_database_url: str, database_url: str) -> None:
    with pointed_at(empty_database_url):
        call_command("migrate", "reproq_prefork", verbosity=0)
    assert own_catalogue(empty_database_url) == own_catalogue(database_url)


def test_the_program_accepts_what_django_made(empty_database_url: str) -> None:
    with pointed_at(empty_database_url):
        call_command("migrate", "reproq_prefork", verbosity=0)
    sources = Sources({"database_url": empty_database_url}, {}, Path.cwd())
    check_database(resolve(sources, hostname="host", now=datetime.now(UTC), cpu_count=1).settings)
    assert migrate(empty_database_url, KNOWN) == ()


def test_django_accepts_migrations_that_psql_applied(empty_database_url: str) -> None:
    apply_migrations(empty_database_url)
    with psycopg.connect(empty_database_url, autocommit=True) as psql:
        psql.execute("insert into task_runs (payload, spec_hash) values ('{}', repeat('0', 64))")
    before = own_catalogue(empty_database_url)
    with pointed_at(empty_database_url):
        call_command("migrate", "reproq_prefork", verbosity=0)
        assert TaskRun.objects.count() == 1
    assert own_catalogue(empty_database_url) == before


def test_django_can_reverse_each_migration(empty_database_url: str, database_url: str) -> None:
    with pointed_at(empty_database_url):
        call_command("migrate", "reproq_prefork", verbosity=0)
        call_command("migrate", "reproq_prefork", LABELS[0], verbosity=0)
        assert migrated_to(empty_database_url) == 1
        call_command("migrate", "reproq_prefork", "zero", verbosity=0)
        assert own_catalogue(empty_database_url) == []
        call_command("migrate", "reproq_prefork", verbosity=0)
    assert own_catalogue(empty_database_url) == own_catalogue(database_url)


def migrated_to(url: str) -> int:
    with psycopg.connect(url) as psql:
        row = psql.execute("select max(version) from reproq_schema_migrations").fetchone()
    assert row is not None
    return int(row[0])


def test_django_has_no_migration_to_make(django_database: str) -> None:
    call_command("makemigrations", "reproq_prefork", check=True, dry_run=True, verbosity=0)


@pytest.mark.parametrize("each", KNOWN, ids=LABELS)
def test_the_sql_can_be_seen(each: Any, django_database: str) -> None:
    out = io.StringIO()
    call_command("sqlmigrate", "reproq_prefork", each.label, stdout=out)
    assert each.up.strip() in out.getvalue()
    out = io.StringIO()
    call_command("sqlmigrate", "reproq_prefork", each.label, backwards=True, stdout=out)
    assert each.down.strip() in out.getvalue()


def test_a_database_that_no_backend_uses_gets_no_tables(empty_database_url: str) -> None:
    connections.settings["elsewhere"] = connections.settings["default"].copy()
    try:
        with pointed_at(empty_database_url), elsewhere(empty_database_url):
            call_command("migrate", "reproq_prefork", verbosity=0)
            assert own_catalogue(empty_database_url) == []
    finally:
        del connections.settings["elsewhere"]


def test_a_database_that_is_not_postgresql_gets_no_tables(tmp_path: Path) -> None:
    connections.settings["sqlite"] = connections.configure_settings(
        {
            "default": connections.settings["default"],
            "sqlite": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "db")},
        }
    )["sqlite"]
    try:
        with override_settings(
            TASKS={
                "default": {
                    "BACKEND": "reproq_prefork.django.ReproqBackend",
                    "OPTIONS": {"database": "sqlite"},
                }
            }
        ):
            call_command("migrate", "reproq_prefork", database="sqlite", verbosity=0, skip_checks=True)
        assert connections["sqlite"].introspection.table_names() == ["django_migrations"]
    finally:
        connections["sqlite"].close()
        del connections["sqlite"]
        del connections.settings["sqlite"]


def test_a_test_database_of_django_has_the_tables(empty_database_url: str) -> None:
    with pointed_at(empty_database_url):
        made = setup_databases(verbosity=0, interactive=False)
        try:
            assert connection.settings_dict["NAME"].startswith("test_")
            assert TaskRun.objects.count() == Worker.objects.count() == 0
        finally:
            teardown_databases(made, verbosity=0)


class NotHere:
    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        return False if app_label == "reproq_prefork" else None


def test_a_router_may_keep_the_tables_out(empty_database_url: str) -> None:
    with (
        pointed_at(empty_database_url),
        override_settings(DATABASE_ROUTERS=["tests.django.test_migrations.NotHere"]),
    ):
        call_command("migrate", "reproq_prefork", verbosity=0)
    assert own_catalogue(empty_database_url) == []


@pytest.mark.parametrize("model", [TaskRun, Worker])
def test_a_model_has_the_columns_of_its_table(model: Any, django_database: str) -> None:
    with connection.cursor() as cursor:
        described = connection.introspection.get_table_description(cursor, model._meta.db_table)
        cursor.execute(
            "select attname, format_type(atttypid, atttypmod) from pg_attribute "
            "where attrelid = %s::regclass and attnum > 0 and not attisdropped",
            [model._meta.db_table],
        )
        types = dict(cursor.fetchall())
    fields = {field.column: field for field in model._meta.fields}
    assert fields.keys() == {column.name for column in described}
    assert {name: field.null for name, field in fields.items()} == {
        column.name: column.null_ok for column in described
    }
    assert {name: field.rel_db_type(connection) for name, field in fields.items()} == types


def test_a_json_column_loads_whatever_is_stored(django_database: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "insert into task_runs (payload, spec_hash) values (%s, repeat('0', 64)), (%s, repeat('0', 64))",
            ["[1e131071, 0.1]", "[" * 2000 + "]" * 2000],
        )
    first, second = TaskRun.objects.order_by("id")
    assert "1" + "0" * 131071 in first.payload.text
    assert "[[" in second.payload.text


def test_a_save_is_refused(django_database: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("insert into task_runs (payload, spec_hash) values ('{}', repeat('0', 64))")
    with pytest.raises(TypeError, match="cannot be saved"):
        TaskRun.objects.get().save()
    assert TaskRun.objects.update(priority=3) == 1
