"""Wait for the end of a run, without Django: notified if that is possible, by polling if not."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from reproq_prefork import Status, aenqueue, arequeue, await_, cancel, enqueue, wait
from reproq_prefork.errors import RunNotFound
from reproq_prefork.store import waiting
from reproq_prefork.store.task_runs import EndNotVisible
from tests.support.postgres.databases import as_login
from tests.support.waiting import wait_until

Connection = psycopg.Connection[Any]


def wait_for(url: str, run_id: int, timeout: float | None, *, asynchronous: bool) -> Any:
    """On a new connection with autocommit."""
    if not asynchronous:
        with psycopg.connect(url, autocommit=True) as connection:
            return wait(connection, run_id, timeout=timeout)

    async def main() -> Any:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            return await await_(connection, run_id, timeout=timeout)

    return asyncio.run(main())


@contextmanager
def meanwhile(action: Callable[[], object]) -> Iterator[None]:
    failures: list[BaseException] = []

    def act() -> None:
        try:
            action()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=act)
    thread.start()
    yield
    thread.join()
    assert not failures


def waiters(url: str) -> int:
    with psycopg.connect(url) as other:
        row = other.execute("select count(*) from reproq_waiters").fetchone()
        assert row is not None
        return int(row[0])


def cancel_once_awaited(url: str, run_id: int) -> None:
    wait_until(lambda: waiters(url), 10, "a waiter")
    with psycopg.connect(url) as other:
        cancel(other, run_id)


both = pytest.mark.parametrize("asynchronous", [False, True], ids=["wait", "await_"])


@both
def test_the_end_is_notified_and_not_only_polled(
    database_url: str, connection: Connection, monkeypatch: pytest.MonkeyPatch, asynchronous: bool
) -> None:
    monkeypatch.setattr(waiting, "LOOK_FIRST_S", 60.0)
    monkeypatch.setattr(waiting, "LISTENING_LOOK_INTERVAL_S", 60.0)
    run = enqueue(connection, {})
    with meanwhile(lambda: cancel_once_awaited(database_url, run.id)):
        ended = wait_for(database_url, run.id, 30, asynchronous=asynchronous)
    assert ended.status is Status.CANCELLED
    assert waiters(database_url) == 0


@both
def test_a_run_that_has_finished_is_returned_at_once(
    database_url: str, connection: Connection, monkeypatch: pytest.MonkeyPatch, asynchronous: bool
) -> None:
    monkeypatch.setattr(waiting, "_opened", None)
    monkeypatch.setattr(waiting, "_opened_async", None)
    run = cancel(connection, enqueue(connection, {}).id)
    assert wait_for(database_url, run.id, None, asynchronous=asynchronous) == run


@both
def test_a_wait_gives_up(database_url: str, connection: Connection, asynchronous: bool) -> None:
    run = enqueue(connection, {})
    with pytest.raises(TimeoutError, match=f"^run {run.id} has not finished within 0.1 s$"):
        wait_for(database_url, run.id, 0.1, asynchronous=asynchronous)
    assert waiters(database_url) == 0


@both
def test_a_run_that_is_not_there_is_not_awaited(database_url: str, asynchronous: bool) -> None:
    with pytest.raises(RunNotFound):
        wait_for(database_url, 10**9, None, asynchronous=asynchronous)


@both
def test_a_wait_polls_if_it_cannot_be_notified(
    database_url: str, connection: Connection, caplog: pytest.LogCaptureFixture, asynchronous: bool
) -> None:
    caplog.set_level(logging.DEBUG, logger="reproq_prefork")
    run = enqueue(connection, {})

    def cancel_once_refused() -> None:
        wait_until(lambda: "polling for the end of run" in caplog.text, 10, "the wait to be refused")
        cancel(connection, run.id)

    with meanwhile(cancel_once_refused):
        ended = wait_for(as_login(database_url, "observer"), run.id, 20, asynchronous=asynchronous)
    assert ended.status is Status.CANCELLED


@pytest.mark.parametrize("requeued", [False, True])
@both
def test_a_wait_inside_the_transaction_that_enqueued_is_refused(
    database_url: str, asynchronous: bool, requeued: bool
) -> None:
    """Nothing would ever end it: no worker sees the run."""

    async def main() -> None:
        async with await psycopg.AsyncConnection.connect(database_url) as own:
            run = await aenqueue(own, {})
            async with own.transaction():
                if requeued:
                    run = await arequeue(own, run_id=run.id)
                with pytest.raises(EndNotVisible, match=f"Run {run.id} was enqueued in the transaction"):
                    await await_(own, run.id)

    if asynchronous:
        asyncio.run(main())
        return
    with psycopg.connect(database_url) as own:
        run = enqueue(own, {})
        with own.transaction():
            if requeued:
                run = enqueue(own, {})
            with pytest.raises(EndNotVisible, match="commit before you wait for its end"):
                wait(own, run.id)
        own.commit()
        with pytest.raises(TimeoutError):
            wait(own, run.id, timeout=0.05)


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_a_wait_in_a_transaction_with_one_snapshot_is_refused(
    database_url: str, connection: Connection, isolation: str
) -> None:
    run = enqueue(connection, {})
    url = make_conninfo(
        database_url, options=f"-c default_transaction_isolation={isolation.replace(' ', chr(92) + ' ')}"
    )
    with psycopg.connect(url) as own, pytest.raises(EndNotVisible, match=f"is {isolation}, so it never sees"):
        wait(own, run.id)
    with meanwhile(lambda: cancel_once_awaited(database_url, run.id)):
        assert wait_for(url, run.id, 20, asynchronous=False).is_finished


def test_a_wait_in_an_open_transaction_sees_the_end(database_url: str, connection: Connection) -> None:
    run = enqueue(connection, {})
    with psycopg.connect(database_url) as own:
        own.execute("create temporary table mine ()")
        with meanwhile(lambda: cancel_once_awaited(database_url, run.id)):
            assert wait(own, run.id, timeout=20).is_finished
        own.execute("select from mine")


def test_other_coroutines_go_on_meanwhile(database_url: str, connection: Connection) -> None:
    run = enqueue(connection, {})
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            ticks.append(time.monotonic())
            await asyncio.sleep(0.01)

    async def main() -> Any:
        ticking = asyncio.create_task(tick())
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as own:
            done = await await_(own, run.id, timeout=20)
        ticking.cancel()
        return done

    with meanwhile(lambda: cancel_once_awaited(database_url, run.id)):
        assert asyncio.run(main()).is_finished
    assert len(ticks) > 1
