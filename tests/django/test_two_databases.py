"""Sites that keep runs in several databases: which one a run, a result and a worker belong to."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from django.db import DatabaseError, connections, transaction
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from psycopg import sql
from psycopg.conninfo import make_conninfo

from reproq_prefork import enqueue
from reproq_prefork.django import bulk_enqueue, call
from reproq_prefork.django.families.compat import families
from reproq_prefork.django.perform.runs_database import HeldRun
from reproq_prefork.django.testing import run_tasks
from reproq_prefork.errors import ExitStatus
from tests.django.app import tasks as typed_tasks
from tests.django.app.routers import Changeable
from tests.support.checkout import CHECKOUT
from tests.support.django.databases import connection_settings, run_async
from tests.support.django.workers import Workers
from tests.support.postgres.databases import apply_migrations, as_login, new_database
from tests.support.postgres.pgbouncer import pooler
from tests.support.postgres.servers import Server
from tests.support.rows.stores import worker_store
from tests.support.supervisor.supervisor import run_row

tasks: Any = typed_tasks
FAMILY = families()[0]
STATUSES = FAMILY.statuses
OURS = "reproq_prefork.django.ReproqBackend"


def backends(**databases: str) -> dict[str, Any]:
    """TASKS with a backend for each name, that keeps its runs there."""
    return {name: {"BACKEND": OURS, "OPTIONS": {"database": alias}} for name, alias in databases.items()}


@pytest.fixture
def other_url(server: Server, django_database: str, django_template_url: str) -> Iterator[str]:
    """The URL of a second database with the same tables, which Django knows as "other"."""
    with new_database(server.url, django_template_url) as url:
        connections.settings["other"] = {**connections.settings["default"], **connection_settings(url)}
        try:
            yield url
        finally:
            connections["other"].close()
            del connections["other"]
            del connections.settings["other"]


def count(url: str, table: str = "task_runs") -> int:
    with psycopg.connect(url) as other:
        row = other.execute(sql.SQL("select count(*) from {}").format(sql.Identifier(table))).fetchone()
    assert row is not None
    return int(row[0])


@pytest.fixture
def router() -> Iterator[type[Changeable]]:
    """Set its `alias`."""
    with override_settings(DATABASE_ROUTERS=[Changeable()]):
        yield Changeable
    Changeable.alias = "default"


# --- results ---


def test_a_result_stays_with_the_database_of_its_run(
    django_database: str, other_url: str, router: type[Changeable]
) -> None:
    """If the router now points to another database, the id belongs to another run there."""
    here = tasks.add.enqueue(1, 2)
    router.alias = "other"
    there = tasks.add.enqueue(3, 4)
    assert here.id == there.id
    for result, args in ((here, [1, 2]), (there, [3, 4]), (pickle.loads(pickle.dumps(here)), [1, 2])):
        result.refresh()
        assert (result.args, FAMILY.backends["default"].requeue(result).args) == (args, args)
    assert here.cancel()
    assert here.cancel_requested
    with pytest.raises(TimeoutError):
        there.wait(timeout=0.1)
    assert here.wait(timeout=0.1).status == STATUSES.FAILED
    assert run_async(here.await_(timeout=0.1)).status == STATUSES.FAILED


def test_a_backend_finds_the_run_of_a_result_of_another_backend(django_database: str, other_url: str) -> None:
    with override_settings(TASKS=backends(default="default", second="other")):
        here = tasks.add.enqueue(1, 2)
        there = tasks.add.using(backend="second").enqueue(3, 4)
        assert here.id == there.id
        assert FAMILY.backends["default"].cancel(there)
        here.refresh()
        assert (here.status, there.status) == (STATUSES.READY, STATUSES.FAILED)


# --- in this process ---


def test_tasks_run_in_the_database_that_they_were_enqueued_in(django_database: str, other_url: str) -> None:
    """The decorator of each task names the backend "default", where a run with the same id is held."""
    with override_settings(TASKS=backends(default="default", second="other")):
        there = [
            task.using(backend="second").enqueue(*args)
            for task, args in (
                (tasks.progress, ()),
                (tasks.look_at_itself, ("mine",)),
                (tasks.write_note_with_progress, ("there",)),
            )
        ]
        here = [tasks.add.enqueue(1, 2) for _ in there]
        assert [result.id for result in here] == [result.id for result in there]
        hold_all(django_database)
        ended = run_tasks(backend="second")
        assert [(result.id, result.status) for result in ended] == [
            (result.id, STATUSES.SUCCESSFUL) for result in there
        ]
        metadata = [{"step": 2, "of": 2, "claim": 1}, None, {"step": 2}]
        assert [result.metadata for result in ended] == metadata
        assert ended[1].return_value == ["RUNNING", "mine"]
        for result in here:
            result.refresh()
            assert (result.status, result.metadata) == (STATUSES.RUNNING, None)


def test_a_write_after_its_alias_points_to_another_database_changes_no_run(
    django_database: str, other_url: str
) -> None:
    """For example, a host name now points to another server, where a run has the same id and claim."""
    tasks.add.enqueue(1, 2)
    hold_all(django_database)
    with psycopg.connect(other_url, autocommit=True) as other:
        enqueue(other, {"v": 1, "task": "tests.django.app.tasks.add", "args": [3, 4], "kwargs": {}})
    with contextlib.closing(worker_store(other_url, "of the other")) as store:
        (run,) = store.finish_and_claim([], max_runs=1).runs
    before = row(django_database)
    assert (before["id"], before["claims"]) == run.token
    astray, right = HeldRun("default", run), HeldRun("other", run)
    astray.save_metadata('{"of": "the other"}')
    assert not astray.complete(result="7", last_attempt=None)
    assert not astray.is_completed()
    assert row(django_database) == before
    right.save_metadata('{"of": "the other"}')
    assert right.complete(result="7", last_attempt=None)
    assert right.is_completed()
    with psycopg.connect(django_database) as default:
        default.execute(
            "update task_runs set status = 'SUCCESSFUL', leased_by = null, lease_expires_at = null"
        )
    assert not astray.is_completed()


def row(url: str) -> dict[str, Any]:
    with psycopg.connect(url) as connection:
        return run_row(connection, 1)


def hold_all(url: str) -> None:
    """As if a worker had claimed each run for the first time."""
    with psycopg.connect(url) as connection:
        connection.execute(
            "update task_runs set status = 'RUNNING', claims = 1, attempts = 1, leased_by = 'w', "
            "worker_ids = '{w}', lease_expires_at = 'tomorrow'"
        )


# --- many at once ---


def test_a_wrong_call_for_one_database_prevents_the_calls_for_another(
    django_database: str, other_url: str
) -> None:
    with override_settings(TASKS=backends(default="default", second="other")):
        elsewhere = tasks.add.using(backend="second")
        nowhere = SimpleNamespace(get_backend=object, backend="theirs", module_path="theirs.add")
        for wrong in (call(elsewhere, object(), 2), call(nowhere, 1, 2)):
            with pytest.raises((TypeError, ValueError)):
                bulk_enqueue([call(tasks.add, 1, 2), call(elsewhere, 3, 4), wrong])
    assert (count(django_database), count(other_url)) == (0, 0)


@pytest.mark.parametrize("copy_from", [0, 10**9])
def test_a_call_that_one_database_refuses_is_not_in_the_other(
    django_database: str, other_url: str, monkeypatch: pytest.MonkeyPatch, copy_from: int
) -> None:
    monkeypatch.setattr("reproq_prefork.store.bulk.COPY_FROM", copy_from)
    with psycopg.connect(other_url) as other:
        other.execute("alter table task_runs add constraint refused check (priority < 7)")
    with override_settings(TASKS=backends(default="default", second="other")):
        refused = tasks.add.using(backend="second", priority=7)
        with pytest.raises(DatabaseError):
            bulk_enqueue([call(tasks.add, 1, 2), call(tasks.add, 3, 4), call(refused, 5, 6)])
        assert (count(django_database), count(other_url)) == (0, 0)
        # Nor does it end the transaction of the caller.
        with transaction.atomic():
            kept = tasks.add.enqueue(1, 2)
            with pytest.raises(DatabaseError):
                bulk_enqueue([call(tasks.add, 1, 2), call(refused, 5, 6)])
        kept.refresh()
    assert (count(django_database), count(other_url)) == (1, 0)


def test_calls_for_two_databases_come_back_in_their_order(django_database: str, other_url: str) -> None:
    with override_settings(TASKS=backends(default="default", second="other", third="default")):
        of = [tasks.add.using(backend=name) for name in ("default", "second", "third")]
        results = bulk_enqueue(call(of[number % 3], number, 0) for number in range(9))
        assert [result.args[0] for result in results] == list(range(9))
        assert [result.backend for result in results] == ["default", "second", "third"] * 3
        for result in results:
            result.refresh()
            assert result.args[1] == 0
    assert (count(django_database), count(other_url)) == (6, 3)


def test_calls_of_two_backends_with_one_database_are_one_statement(django_database: str) -> None:
    with override_settings(TASKS=backends(default="default", second="default")):
        second = tasks.add.using(backend="second")
        with CaptureQueriesContext(connections["default"]) as queries:
            bulk_enqueue([call(tasks.add, 1, 2), call(second, 3, 4)])
        assert len(queries) == 1
        unique = tasks.unique.using(backend="second")
        holder, again = bulk_enqueue([call(tasks.unique, 1), call(unique, 1)])
    assert (holder.created, again.created, holder.id) == (True, False, again.id)
    assert (holder.backend, again.backend) == ("default", "second")


# --- workers ---


@pytest.mark.parametrize("executor", ["fork", "inline"])
def test_a_router_does_not_redirect_a_tasks_access_to_its_own_run(
    django_workers: Workers, django_database: str, other_url: str, executor: str
) -> None:
    environ = {
        "REPROQ_TEST_OTHER_DATABASE_URL": other_url,
        "REPROQ_TEST_ROUTERS": json.dumps(["tests.django.app.routers.Changeable"]),
    }
    with django_workers("--executor", executor, environ=environ, workers=1):
        for name in ("first", "second"):
            result = tasks.redirect.enqueue(name).wait(30)
            assert (result.status, result.metadata) == (STATUSES.SUCCESSFUL, {"name": name})
            assert result.return_value == [name]
    assert count(other_url) == 0


def test_another_address_of_the_same_database_is_accepted(
    django_workers: Workers, django_database: str
) -> None:
    address = make_conninfo(as_login(django_database, "worker"), application_name="other words")
    with django_workers("--database-url", address, workers=1):
        result = tasks.write_note_with_progress.enqueue("hello").wait(30)
    assert (result.status, result.metadata) == (STATUSES.SUCCESSFUL, {"step": 2})


@pytest.mark.parametrize("who", ["the workers", "the tasks", "both"])
def test_a_pooler_leads_to_the_same_database(django_workers: Workers, django_database: str, who: str) -> None:
    with pooler(django_database, connections=4) as pooled_url:
        address = urlsplit(pooled_url)
        by_pooler = {"HOST": address.hostname, "PORT": str(address.port), "DISABLE_SERVER_SIDE_CURSORS": True}
        environ = {} if who == "the workers" else {"REPROQ_TEST_CONNECTION": json.dumps(by_pooler)}
        url = django_database if who == "the tasks" else pooled_url
        with django_workers("--database-url", url, workers=1, environ=environ):
            result = tasks.write_note_with_progress.enqueue("hello").wait(30)
    assert (result.status, result.metadata) == (STATUSES.SUCCESSFUL, {"step": 2})


@pytest.mark.parametrize("where", ["another database", "another schema of the same database"])
def test_a_master_does_not_start_on_a_database_that_no_backend_uses(
    django_workers: Workers, django_database: str, other_url: str, where: str
) -> None:
    address = other_url if where == "another database" else with_a_schema_of_its_own(django_database)
    supervisor = django_workers("--database-url", address)
    with supervisor.starting():
        assert supervisor.wait() == ExitStatus.USAGE
    (line,) = (line for line in supervisor.log().splitlines() if "ERROR" in line)
    assert "no backend in TASKS keeps its runs in the database" in line
    assert f'TASKS["default"] keeps them in DATABASES["default"], {where}' in line


def with_a_schema_of_its_own(url: str) -> str:
    """The address of a second set of our tables in the same database."""
    address = make_conninfo(url, options="-c search_path=elsewhere")
    with psycopg.connect(url) as connection:
        connection.execute("create schema elsewhere")
    apply_migrations(address)
    return address


def test_a_master_waits_for_djangos_database_if_it_cannot_connect(
    django_workers: Workers, django_database: str, tmp_path: Path
) -> None:
    """The settings are not at fault. Nothing is started that could act on another database."""
    environ = {"REPROQ_TEST_CONNECTION": json.dumps({"PORT": "1"})}
    with django_workers("--database-url", django_database, environ=environ).starting() as supervisor:
        supervisor.wait_for_log('The database of DATABASES["default"] cannot be used')
        assert "ready" not in supervisor.log()


def test_check_reports_whether_a_backend_uses_the_database(django_database: str, other_url: str) -> None:
    def check(url: str) -> tuple[int, str]:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "reproq_prefork",
                "check",
                "--django",
                "tests.django.settings",
                "--database-url",
                url,
            ],
            env={**os.environ, "DATABASE_URL": django_database},
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout.splitlines()[-1]

    assert check(django_database) == (0, "backends  ok")
    status, line = check(other_url)
    assert status == ExitStatus.USAGE
    assert line.startswith("backends  --django tests.django.settings: no backend in TASKS keeps its runs")
