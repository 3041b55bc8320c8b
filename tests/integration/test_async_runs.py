"""Enqueue and read with asyncio: what the blocking functions do, on an AsyncConnection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import psycopg
import pytest
from psycopg.rows import dict_row

from reproq_prefork import (
    NewRun,
    Status,
    acancel,
    aenqueue,
    aenqueue_many,
    aget_run,
    arequeue,
    enqueue,
    enqueue_many,
    get_run,
    task,
)
from reproq_prefork.errors import RunNotFound, UniqueKeyHeld
from reproq_prefork.model.new_run import InvalidRun
from reproq_prefork.store import bulk
from reproq_prefork.store.psycopg_senders import AsyncPsycopgSender

Connection = psycopg.Connection[Any]
AsyncConnection = psycopg.AsyncConnection[Any]
T = TypeVar("T")


@task
def add_to_cart(product: int) -> None: ...


def on_connection(
    url: str, use: Callable[[AsyncConnection], Awaitable[T]], *, autocommit: bool = True, options: str = ""
) -> T:
    async def main() -> T:
        async with await psycopg.AsyncConnection.connect(
            url, autocommit=autocommit, options=options
        ) as connection:
            return await use(connection)

    return asyncio.run(main())


def count(connection: Connection) -> int:
    row = connection.execute("select count(*) from task_runs").fetchone()
    assert row is not None
    return int(row[0])


def test_a_run_is_the_one_that_the_blocking_call_adds(database_url: str, connection: Connection) -> None:
    options: dict[str, Any] = {
        "queue_name": "mail",
        "priority": -7,
        "run_after": datetime(2031, 5, 17, 8, 30, tzinfo=UTC),
        "max_attempts": 5,
        "timeout_seconds": 0.1,
        "unique_key": "order 7",
        "executor": "fork",
        "retry_base_seconds": 2.5,
    }
    run = on_connection(database_url, lambda own: aenqueue(own, {"é": [1, 0.1, None]}, **options))
    assert run.created
    assert get_run(connection, run.id) == run
    held = enqueue(connection, {"é": [1, 0.1, None]}, **options)
    assert (held.id, held.created) == (run.id, False)
    assert held == run


def test_a_run_is_in_the_transaction_of_the_caller(database_url: str, connection: Connection) -> None:
    async def add(own: AsyncConnection) -> None:
        await aenqueue(own, 1)
        assert count(connection) == 0
        await own.rollback()
        await aenqueue(own, 2)
        await aenqueue_many(own, [NewRun.of(3, unique_key="k"), NewRun.of(4)])
        assert count(connection) == 0
        await own.commit()
        assert count(connection) == 3
        async with own.transaction(force_rollback=True):
            await aenqueue(own, 5)

    on_connection(database_url, add, autocommit=False)
    assert count(connection) == 3


@pytest.mark.parametrize("copy_from", [500, 1])
def test_many_are_in_the_transaction_that_they_begin(
    database_url: str, connection: Connection, monkeypatch: pytest.MonkeyPatch, copy_from: int
) -> None:
    monkeypatch.setattr(bulk, "COPY_FROM", copy_from)
    new_runs = [NewRun.of(1), NewRun.of(2, unique_key="k" if copy_from == 500 else None)]

    async def add(own: AsyncConnection) -> None:
        await aenqueue_many(own, new_runs)
        assert count(connection) == 0
        await own.rollback()

    on_connection(database_url, add, autocommit=False)
    assert count(connection) == 0


def test_a_task_is_enqueued(database_url: str, connection: Connection) -> None:
    run = on_connection(database_url, lambda own: add_to_cart.using(priority=3).aenqueue(own, 7))
    assert get_run(connection, run.id).payload == {
        "v": 1,
        "task": add_to_cart.path,
        "args": [7],
        "kwargs": {},
    }
    assert run.priority == 3


@pytest.mark.parametrize("copy_from", [500, 2])
@pytest.mark.parametrize("style", ["ISO", "German"])
def test_many_are_added_as_the_blocking_call_adds_them(
    database_url: str, connection: Connection, monkeypatch: pytest.MonkeyPatch, copy_from: int, style: str
) -> None:
    monkeypatch.setattr(bulk, "COPY_FROM", copy_from)
    new_runs = [
        NewRun.of(place, timeout_seconds=0.1, run_after=timedelta(hours=place % 2)) for place in range(9)
    ]
    runs = on_connection(
        database_url, lambda own: aenqueue_many(own, new_runs), options=f"-c DateStyle={style}"
    )
    assert [run.payload for run in runs] == list(range(9))
    assert [get_run(connection, run.id) for run in runs] == list(runs)
    assert [run.payload for run in enqueue_many(connection, new_runs)] == list(range(9))


@pytest.mark.parametrize("autocommit", [True, False])
@pytest.mark.parametrize("copy_from", [500, 2])
def test_all_or_none_are_added(
    database_url: str,
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
    copy_from: int,
    autocommit: bool,
) -> None:
    monkeypatch.setattr(bulk, "COPY_FROM", copy_from)
    monkeypatch.setattr(bulk, "BATCH_RUNS", 2)
    connection.execute("alter table task_runs add constraint no_nines check (payload <> '9')")

    async def add(own: AsyncConnection) -> None:
        await aenqueue(own, "before")
        with pytest.raises(psycopg.errors.CheckViolation):
            await aenqueue_many(own, [NewRun.of(place) for place in (1, 2, 3, 4, 9)])
        await aenqueue(own, "after")
        await own.commit()

    on_connection(database_url, add, autocommit=autocommit)
    assert [row[0] for row in connection.execute("select payload from task_runs order by id")] == [
        "before",
        "after",
    ]


def test_a_key_that_was_given_back_meanwhile_is_tried_again(
    database_url: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueue(connection, "held", unique_key="k")
    fetch, names = AsyncPsycopgSender.fetch, []

    async def finish_first(sender: AsyncPsycopgSender, name: str, parameters: Any) -> Sequence[Any]:
        names.append(name)
        if name == "runs_that_hold_keys":
            connection.execute("update task_runs set status = 'SUCCESSFUL' where unique_key = 'k'")
        return await fetch(sender, name, parameters)

    monkeypatch.setattr(AsyncPsycopgSender, "fetch", finish_first)
    new_runs = [NewRun.of(0), NewRun.of(1, unique_key="k"), NewRun.of(2)]
    runs = on_connection(database_url, lambda own: aenqueue_many(own, new_runs))
    assert [(run.payload, run.created) for run in runs] == [(0, True), (1, True), (2, True)]
    assert names == ["enqueue_runs", "runs_that_hold_keys", "enqueue_runs"]
    assert count(connection) == 4


def test_a_run_is_read_cancelled_and_added_again(database_url: str, connection: Connection) -> None:
    run = enqueue(connection, {"n": 1}, unique_key="k", queue_name="mail")

    async def use(own: AsyncConnection) -> None:
        own.row_factory = dict_row
        assert await aget_run(own, run.id) == run
        with pytest.raises(UniqueKeyHeld, match=f"held by run {run.id}"):
            await arequeue(own, run_id=run.id)
        assert (await acancel(own, run.id)).status is Status.CANCELLED
        assert (await acancel(own, run.id)).status is Status.CANCELLED
        by_id = await arequeue(own, run_id=run.id)
        await acancel(own, by_id.id)
        by_hash = await arequeue(own, spec_hash=run.spec_hash)
        assert (by_id.replay_of, by_hash.replay_of) == (run.id, by_id.id)
        for read in (aget_run, acancel):
            with pytest.raises(RunNotFound):
                await read(own, 10**9)
            with pytest.raises(InvalidRun):
                await read(own, "1")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"^arequeue\(\) takes either"):
            await arequeue(own)

    on_connection(database_url, use)


def test_a_wrong_value_does_not_end_the_transaction(database_url: str, connection: Connection) -> None:
    async def use(own: AsyncConnection) -> None:
        await aenqueue(own, 1)
        with pytest.raises(InvalidRun):
            await aenqueue(own, 2, priority=1000)
        await own.commit()

    on_connection(database_url, use, autocommit=False)
    assert count(connection) == 1
