"""Each mistake in TASKS is told before anything runs, with what to do."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from django.apps import apps
from django.core import checks as django_checks
from django.core.management import call_command
from django.db import connections
from django.test import override_settings

from reproq_prefork.django.project.checks import check_backend
from tests.support.django.databases import pointed_at


def told(*, queues: tuple[Any, ...] = ("default",), **options: Any) -> list[tuple[str, str]]:
    """The messages for a backend with these options: id and sentence, with the hint after it."""
    return told_of(SimpleNamespace(alias="mine", queues=set(queues), options=options))


def told_of(backend: Any) -> list[tuple[str, str]]:
    return [
        (str(each.id).removeprefix("reproq_prefork."), f"{each.msg} {each.hint or ''}")
        for each in check_backend(backend)
    ]


def test_correct_settings_are_not_reported() -> None:
    assert told() == []
    assert (
        told(
            database="default",
            max_attempts=5,
            timeout=30,
            retry_base=0.5,
            retry_max=60,
            executor="fork",
            mode="immediate",
        )
        == []
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"max_attempts": 0}, "max_attempts must be a whole number from 1 to 1000, not 0"),
        ({"timeout": "30s"}, "timeout must be a number of seconds"),
        ({"retry_base": -1}, "retry_base must be from 0"),
        ({"retry_max": float("nan")}, "retry_max must be from 0"),
        ({"executor": "thread"}, "executor must be one of fork, inline"),
        ({"mode": "eager"}, "mode must be one of immediate"),
        ({"retry_base": 60, "retry_max": 5}, "retry_base, 60, is longer than retry_max, 5"),
    ],
)
def test_a_wrong_value_is_reported(options: dict[str, Any], sentence: str) -> None:
    ((number, text),) = told(**options)
    assert number == "E003"
    assert sentence in text
    assert 'TASKS["mine"]' in text


def test_an_unknown_option_is_reported_with_a_suggestion() -> None:
    assert told(max_atempts=3) == [
        ("E002", 'TASKS["mine"]: OPTIONS has an unknown key "max_atempts". Did you mean "max_attempts"?')
    ]


def test_options_that_are_not_a_dictionary_are_reported() -> None:
    ((number, _),) = told_of(SimpleNamespace(alias="mine", queues={"a"}, options=["database"]))
    assert number == "E001"


@pytest.mark.parametrize("name", ["a,b", "", " a", "a\nb", "x" * 129, 7])
def test_a_queue_name_that_no_worker_could_serve_is_reported(name: Any) -> None:
    ((number, text),) = told(queues=(name,))
    assert number == "E005"
    assert "QUEUES: a queue" in text


def test_an_unknown_database_is_reported_with_a_suggestion() -> None:
    ((number, text),) = told(database="defualt")
    assert (number, "Did you mean" in text) == ("E006", True)


@pytest.fixture
def other_databases(tmp_path: Path) -> Any:
    added = connections.configure_settings(
        {
            "default": dict(connections.settings["default"]),
            "sqlite": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "db")},
            "runs": {**connections.settings["default"], "NAME": "runs"},
        }
    )
    for alias in ("sqlite", "runs"):
        connections.settings[alias] = added[alias]
    yield
    for alias in ("sqlite", "runs"):
        del connections.settings[alias]


def test_another_database_engine_is_reported(other_databases: None) -> None:
    ((number, text),) = told(database="sqlite")
    assert (number, "is sqlite, and task runs need PostgreSQL" in text) == ("E007", True)


def test_psycopg2_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django.db.backends.postgresql.psycopg_any.is_psycopg3", False)
    ((number, text),) = told()
    assert (number, "psycopg[binary]" in text) == ("E008", True)


def test_a_missing_application_is_reported() -> None:
    others = [each.name for each in apps.get_app_configs() if each.name != "reproq_prefork.django"]
    with override_settings(INSTALLED_APPS=others):
        ((number, text),) = told()
    assert (number, 'Add "reproq_prefork.django" there' in text) == ("E004", True)


class Elsewhere:
    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        return "runs" if model._meta.app_label == "reproq_prefork" else None

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        return db == "runs" if app_label == "reproq_prefork" else None


def test_a_router_that_disagrees_is_reported(other_databases: None) -> None:
    with override_settings(DATABASE_ROUTERS=["tests.django.test_checks.Elsewhere"]):
        assert [number for number, _ in told(database="default")] == ["E009", "W002"]
        assert told() == []  # without OPTIONS the router decides


def test_atomic_requests_on_another_database_are_reported(
    other_databases: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    assert told(database="default") == []
    ((number, text),) = told(database="runs")
    assert (number, "transaction.on_commit" in text) == ("W003", True)


def schema_messages(**kwargs: Any) -> list[str]:
    return [
        f"{each.id} {each.msg} {each.hint}"
        for each in django_checks.run_checks(**kwargs)
        if str(each.id).startswith(("reproq_prefork.W004", "reproq_prefork.W005"))
    ]


def test_an_old_schema_is_reported_only_if_databases_are_checked(empty_database_url: str) -> None:
    with pointed_at(empty_database_url):
        assert schema_messages() == []
        (message,) = schema_messages(databases=["default"])
        assert "has no reproq schema" in message
        assert "manage.py migrate reproq_prefork`" in message
        call_command("migrate", "reproq_prefork", "0001", verbosity=0)
        (message,) = schema_messages(databases=["default"])
        assert "schema version 1" in message
        call_command("migrate", "reproq_prefork", verbosity=0)
        assert schema_messages(databases=["default"]) == []


def test_a_copy_of_another_database_is_reported(database_url: str) -> None:
    with psycopg.connect(database_url) as psql:
        psql.execute(
            "insert into reproq_database (database_oid, table_oid, database_name) values (1, 1, 'live')"
        )
    with pointed_at(database_url):
        assert schema_messages() == []
        (message,) = schema_messages(databases=["default"])
    assert message.startswith("reproq_prefork.W005 The database ")
    assert "is a copy: its runs came from the database live (oid 1)" in message
    assert "`manage.py reproq_worker adopt --cancel-unfinished`" in message


def test_migrate_does_not_warn_of_migrations_that_it_will_apply(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["manage.py", "migrate"])
    with pointed_at(empty_database_url):
        assert schema_messages(databases=["default"]) == []
