"""Django's connections in workers: as it keeps them around requests, and never one of another process."""

from __future__ import annotations

import json
from typing import Any

import psutil
import psycopg
import pytest

from reproq_prefork.django import TaskTimeout
from tests.django.app import tasks as typed_tasks
from tests.support.django.workers import Workers
from tests.support.postgres.servers import Server
from tests.support.waiting import wait_until

tasks: Any = typed_tasks


def server_processes(count: int) -> list[int]:
    """The server process that each of so many tasks, one after the other, has spoken to."""
    return [tasks.tell_server_process.enqueue().wait(30).return_value for _ in range(count)]


def test_a_connection_is_closed_after_each_task(django_workers: Workers) -> None:
    with django_workers("--executor", "inline", workers=1):
        assert len(set(server_processes(3))) == 3


def test_a_persistent_connection_is_kept(django_workers: Workers) -> None:
    environ = {"REPROQ_TEST_CONNECTION": json.dumps({"CONN_MAX_AGE": None})}
    with django_workers("--executor", "inline", workers=1, environ=environ):
        assert len(set(server_processes(3))) == 1


def test_a_connection_that_became_too_old_between_tasks_is_not_used_again(
    django_workers: Workers, django_database: str
) -> None:
    environ = {"REPROQ_TEST_CONNECTION": json.dumps({"CONN_MAX_AGE": 1})}
    with (
        django_workers("--executor", "inline", workers=1, environ=environ),
        psycopg.connect(django_database, autocommit=True) as other,
    ):
        (first,) = server_processes(1)
        too_old = "select backend_start < now() - interval '1.5 s' from pg_stat_activity where pid = %s"
        wait_until(lambda: other.execute(too_old, [first]).fetchone() == (True,), 20, "it to be too old")
        assert server_processes(1) != [first]


def test_a_broken_connection_fails_one_task_at_most(django_workers: Workers, django_database: str) -> None:
    environ = {"REPROQ_TEST_CONNECTION": json.dumps({"CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True})}
    with django_workers("--executor", "inline", workers=1, environ=environ):
        (first,) = server_processes(1)
        with psycopg.connect(django_database, autocommit=True) as other:
            other.execute("select pg_terminate_backend(%s, 5000)", [first])
        (second,) = server_processes(1)
    assert second != first


@pytest.mark.parametrize("executor", ["fork", "inline"])
def test_a_query_ends_with_its_task_and_leaves_a_usable_connection(
    django_workers: Workers, django_database: str, executor: str
) -> None:
    with django_workers("--executor", executor, workers=1):
        result = tasks.wait_in_a_query.using(timeout=0.5, max_attempts=1).enqueue(30).wait(20)
    assert result.errors[-1].exception_class is TaskTimeout
    assert "server_process" in result.metadata
    with psycopg.connect(django_database) as other:
        (running,) = other.execute(
            "select count(*) from pg_stat_activity where query like 'select pg_sleep%' and state = 'active' "
            "and datname = current_database()"
        ).fetchone() or (None,)
    assert running == 0


def test_a_stopped_task_does_not_leave_a_busy_connection_to_the_next(django_workers: Workers) -> None:
    environ = {"REPROQ_TEST_CONNECTION": json.dumps({"CONN_MAX_AGE": None})}
    with django_workers("--executor", "inline", workers=1, environ=environ):
        stopped = tasks.leave_a_query_unread.using(timeout=0.5, max_attempts=1).enqueue(30)
        following = tasks.tell_server_process.using(max_attempts=1).enqueue()
        assert stopped.wait(20).errors[-1].exception_class is TaskTimeout
        assert following.wait(20).status.value == "SUCCESSFUL"


@pytest.mark.parametrize("pooled", [False, True])
def test_an_inline_worker_does_not_share_its_connection_with_forked_tasks(
    django_workers: Workers, pooled: bool
) -> None:
    settings = {"CONN_MAX_AGE": 0 if pooled else None}
    options = {"pool": {"min_size": 1, "max_size": 1}} if pooled else {}
    environ = {
        "REPROQ_TEST_CONNECTION": json.dumps(settings),
        "REPROQ_TEST_CONNECTION_OPTIONS": json.dumps(options),
    }
    task = tasks.tell_server_process.using(max_attempts=1)
    with django_workers("--executor", "inline", workers=1, environ=environ):
        seen = [task.using(executor=kind).enqueue().wait(30) for kind in ("inline", "fork", "inline", "fork")]
        assert [result.status.value for result in seen] == ["SUCCESSFUL"] * 4
        inline, forked = ([result.return_value for result in seen[start::2]] for start in (0, 1))
    assert len(set(forked)) == 2
    assert set(forked).isdisjoint(inline)
    if not pooled:  # a pool has threads, beside which no task can be forked: the worker is replaced
        assert len(set(inline)) == 1, "the worker goes on with its own"


@pytest.mark.parametrize("executor", ["fork", "inline"])
def test_a_pool_works_in_workers(django_workers: Workers, executor: str) -> None:
    environ = {"REPROQ_TEST_CONNECTION_OPTIONS": json.dumps({"pool": {"min_size": 1, "max_size": 1}})}
    with django_workers("--executor", executor, workers=1, environ=environ):
        assert len(set(server_processes(3))) == (3 if executor == "fork" else 1)
        assert tasks.write_note_atomically.enqueue("pooled").wait(30).return_value == "pooled"


@pytest.mark.parametrize("executor", ["fork", "inline"])
def test_no_process_forks_beside_a_thread(django_workers: Workers, executor: str) -> None:
    """Python 3.12 and newer warn about it. Here the warning is an error everywhere."""
    environ = {"PYTHONWARNINGS": "error::DeprecationWarning"}
    with django_workers("--executor", executor, workers=2, environ=environ) as supervisor:
        results = [
            tasks.add.enqueue(1, 2),
            tasks.add_asynchronously.enqueue(1, 2),
            tasks.write_note_asynchronously.enqueue("hello"),
            *(tasks.add_asynchronously.using(executor=kind).enqueue(1, 2) for kind in ("inline", "fork") * 3),
        ]
        assert [result.wait(30).status.value for result in results] == ["SUCCESSFUL"] * len(results)
        for process in supervisor.family():
            if "worker" not in " ".join(process.cmdline()):
                assert process.num_threads() == 1
    assert "DeprecationWarning" not in supervisor.log()


def test_tasks_may_be_kept_in_another_database(
    django_workers: Workers, django_template_url: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.db import connections
    from django.test import override_settings

    from tests.support.django.databases import connection_settings
    from tests.support.postgres.databases import new_database

    with new_database(server.url, django_template_url) as url:
        connections.settings["other"] = {**connections.settings["default"], **connection_settings(url)}
        changed = {
            "default": {
                "BACKEND": "reproq_prefork.django.ReproqBackend",
                "QUEUES": ["default", "mail"],
                "OPTIONS": {"database": "other"},
            }
        }
        environ = {
            "REPROQ_TEST_OTHER_DATABASE_URL": url,
            "REPROQ_TEST_BACKEND_OPTIONS": json.dumps({"database": "other"}),
        }
        try:
            with override_settings(TASKS=changed), django_workers(workers=1, environ=environ):
                assert tasks.add.enqueue(1, 2).wait(30).return_value == 3
                with psycopg.connect(url) as other:
                    row = other.execute("select count(*) from task_runs").fetchone()
                assert row == (1,)
        finally:
            connections["other"].close()
            del connections["other"]
            del connections.settings["other"]


def test_stopped_workers_leave_no_process_and_no_connection(
    django_workers: Workers, django_database: str
) -> None:
    with django_workers(workers=2) as supervisor:
        tasks.add.enqueue(1, 2).wait(30)
        family = supervisor.family()
        assert supervisor.stop() == 0
    assert not any(psutil.pid_exists(process.pid) for process in family)
    with psycopg.connect(django_database) as other:
        row = other.execute(
            "select count(*) from pg_stat_activity where datname = current_database() "
            "and application_name like 'reproq-prefork%'"
        ).fetchone()
    assert row == (0,)
