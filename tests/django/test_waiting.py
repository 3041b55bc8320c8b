"""Waiting for a result: told by the server where that works, looking where not."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from asgiref.sync import sync_to_async
from django.db import connection, connections, transaction
from psycopg.conninfo import make_conninfo

from reproq_prefork.demo.postgres import EmbeddedPostgres
from reproq_prefork.django import waiting as djangos
from reproq_prefork.store import waiting
from tests.django.app import tasks as typed_tasks
from tests.support.django.databases import pointed_at, run_async
from tests.support.postgres.databases import as_login
from tests.support.postgres.replica import replica_of
from tests.support.waiting import wait_until

tasks: Any = typed_tasks


def in_a_thread(action: Callable[[], object]) -> threading.Thread:
    def run() -> None:
        try:
            action()
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def succeed(result: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "update task_runs set status = 'SUCCESSFUL', result = '3' where id = %s", [int(result.id)]
        )
        cursor.execute("select pg_notify('reproq_finished', %s)", [result.id])


def succeed_once_awaited(url: str, result: Any) -> None:
    wait_until(lambda: waiters(url), 10, "a waiter")
    succeed(result)


def waiters(url: str) -> int:
    with psycopg.connect(url) as other:
        row = other.execute("select count(*) from reproq_waiters").fetchone()
        assert row is not None
        return int(row[0])


def test_a_wait_ends_with_the_task_and_leaves_no_entry(django_database: str) -> None:
    result = tasks.add.enqueue(1, 2)
    thread = in_a_thread(lambda: succeed_once_awaited(django_database, result))
    assert result.wait(timeout=20).return_value == 3
    thread.join()
    assert waiters(django_database) == 0


def test_an_end_is_announced_by_notify_and_not_only_polled(
    django_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "LOOK_FIRST_S", 60.0)
    monkeypatch.setattr(waiting, "LISTENING_LOOK_INTERVAL_S", 60.0)
    result = tasks.add.enqueue(1, 2)
    thread = in_a_thread(lambda: succeed_once_awaited(django_database, result))
    assert result.wait(timeout=30).return_value == 3
    thread.join()


def test_without_a_second_connection_a_wait_polls(
    django_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(djangos, "_parameters", lambda result: {"host": "127.0.0.1", "port": 1})
    result = tasks.add.enqueue(1, 2)
    thread = in_a_thread(lambda: succeed(result))
    assert result.wait(timeout=20).return_value == 3
    thread.join()


def test_a_wait_goes_on_where_its_connection_is_lost(django_database: str) -> None:
    result = tasks.add.enqueue(1, 2)

    def end_the_listener_and_succeed() -> None:
        wait_until(lambda: waiters(django_database), 10, "a waiter")
        with connection.cursor() as cursor:
            cursor.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where datname = current_database() and query like 'select reproq_await_run%%' "
                "or query like '-- Somebody waits%%'"
            )
        succeed(result)

    thread = in_a_thread(end_the_listener_and_succeed)
    assert result.wait(timeout=20).return_value == 3
    thread.join()


@contextlib.contextmanager
def flood(url: str, payload: str) -> Iterator[None]:
    """Somebody announces as much as they can; `payload` is an expression of SQL."""
    over = threading.Event()

    def announce() -> None:
        with psycopg.connect(url, autocommit=True) as other:
            while not over.is_set():
                other.execute(
                    f"select pg_notify('reproq_finished', {payload}) from generate_series(1, 2000) g".encode()  # noqa: S608
                )

    thread = threading.Thread(target=announce)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


async def awaited(result: Any) -> Any:
    try:
        return await result.await_(timeout=30)
    finally:
        await sync_to_async(connections.close_all)()  # those of the thread that looks


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_flood_of_notifications_does_not_make_a_wait_poll_more_often(
    django_database: str, monkeypatch: pytest.MonkeyPatch, own: bool, asynchronous: bool
) -> None:
    result = tasks.add.enqueue(1, 2)
    looks: list[float] = []
    backend = type(result.task.get_backend())
    look = backend.result_in

    def counted(self: Any, database: str, result_id: object) -> Any:
        looks.append(time.monotonic())
        return look(self, database, result_id)

    monkeypatch.setattr(backend, "result_in", counted)

    def succeed_later() -> None:
        wait_until(lambda: len(looks) > 15, 20, "some looks")
        succeed(result)

    payload = f"'{result.id}' || repeat(' ', 0)" if own else "'x' || g"
    with flood(django_database, payload):
        thread = in_a_thread(succeed_later)
        if asynchronous:
            assert asyncio.run(awaited(result)).return_value == 3
        else:
            assert result.wait(timeout=30).return_value == 3
        thread.join()
    assert len(looks) < 30
    assert looks[-1] - looks[0] > 1.0, "the later looks are a quarter of a second apart"


def test_a_wait_polls_for_a_run_that_is_not_announced(
    django_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = tasks.add.enqueue(1, 2)
    with psycopg.connect(django_database) as other:
        other.execute(
            "insert into reproq_waiters select %s, 'w' || g, now() + interval '1 hour' "
            "from generate_series(1, 100) g",
            [int(result.id)],
        )
    thread = in_a_thread(lambda: succeed_once_awaited(django_database, result))
    assert result.wait(timeout=20).return_value == 3
    thread.join()
    assert waiters(django_database) == 100


# --- where the server does not let us say that we wait ---


def wait_in(asynchronous: bool, result: Any, timeout: float) -> Any:
    return run_async(result.await_(timeout=timeout)) if asynchronous else result.wait(timeout=timeout)


@contextlib.contextmanager
def altered(url: str, change: str) -> Iterator[None]:
    with psycopg.connect(url, autocommit=True) as other:
        other.execute(change.encode())
    yield


@contextlib.contextmanager
def locked(url: str) -> Iterator[None]:
    with psycopg.connect(url) as other:
        other.execute("lock table reproq_waiters in access exclusive mode")
        yield
        wait_until(lambda: not waits_for_a_lock(url), 1, "what was given up to be gone from the server too")


def waits_for_a_lock(url: str) -> bool:
    with psycopg.connect(url) as other:
        query = "select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
        return other.execute(query).fetchone() is not None


REFUSALS: dict[str, Callable[[str], contextlib.AbstractContextManager[object]]] = {
    "a role that may only read": lambda url: pointed_at(as_login(url, "observer")),
    "a session that only reads": lambda url: pointed_at(
        make_conninfo(url, options="-c default_transaction_read_only=on")
    ),
    "no such table": lambda url: altered(url, "alter table reproq_waiters rename to elsewhere"),
    "a locked table": locked,
}


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("why", REFUSALS)
def test_a_wait_polls_if_the_end_cannot_be_announced(
    django_database: str, caplog: pytest.LogCaptureFixture, why: str, asynchronous: bool
) -> None:
    result = tasks.add.enqueue(1, 2)
    caplog.set_level(logging.DEBUG, logger="reproq_prefork.django")
    with REFUSALS[why](django_database):
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            wait_in(asynchronous, result, timeout=0.2)
        assert time.monotonic() - began < waiting.SET_UP_TIMEOUT_S + 2
        thread = in_a_thread(lambda: end_it_unannounced(django_database, result, caplog, refusals=2))
        assert wait_in(asynchronous, result, timeout=20).return_value == 3
        thread.join()
    assert [record.levelno for record in refused(caplog)] == [logging.DEBUG] * 2, "once for each wait"


def refused(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if "polling for the end of task" in record.getMessage()]


def end_it_unannounced(url: str, result: Any, caplog: pytest.LogCaptureFixture, *, refusals: int) -> None:
    """Once so many were refused."""
    wait_until(lambda: len(refused(caplog)) == refusals, 10, "the wait to be refused")
    with psycopg.connect(url) as other:
        other.execute(
            "update task_runs set status = 'SUCCESSFUL', result = '3' where id = %s", [int(result.id)]
        )


@pytest.mark.parametrize("why", REFUSALS)
def test_a_refused_wait_does_not_break_the_transaction(django_database: str, why: str) -> None:
    result = tasks.add.enqueue(1, 2)
    with REFUSALS[why](django_database), transaction.atomic(), connection.cursor() as cursor:
        with pytest.raises(TimeoutError):
            result.wait(timeout=0.1)
        cursor.execute("select count(*) from task_runs")
        assert cursor.fetchone() == (1,)


def test_on_a_standby_a_wait_polls(
    private_server: EmbeddedPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="reproq_prefork.django")
    with pointed_at(private_server.url):
        result = tasks.add.enqueue(1, 2)
    with replica_of(private_server) as replica, pointed_at(replica.url):
        thread = in_a_thread(lambda: end_it_unannounced(private_server.url, result, caplog, refusals=1))
        assert result.wait(timeout=20).return_value == 3
        thread.join()


def test_a_wait_gives_up(django_database: str) -> None:
    result = tasks.add.enqueue(1, 2)
    with pytest.raises(TimeoutError, match=rf"task {result.id} has not finished within 0.1 s"):
        result.wait(timeout=0.1)
    assert waiters(django_database) == 0


def test_a_coroutine_may_wait_while_others_go_on(django_database: str) -> None:
    result = tasks.add.enqueue(1, 2)
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            ticks.append(time.monotonic())
            await asyncio.sleep(0.01)

    async def main() -> Any:
        ticking = asyncio.create_task(tick())
        thread = in_a_thread(lambda: succeed_once_awaited(django_database, result))
        done = await result.await_(timeout=20)
        ticking.cancel()
        await asyncio.to_thread(thread.join)
        return done

    assert asyncio.run(main()).return_value == 3
    assert len(ticks) > 1
    assert waiters(django_database) == 0
