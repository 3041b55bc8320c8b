"""The connections of other libraries: each in the transaction that is open there. And what is refused, and how."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import asyncpg
import psycopg
import psycopg2
import pytest
import sqlalchemy
from psycopg_pool import AsyncConnectionPool, AsyncNullConnectionPool, ConnectionPool, NullConnectionPool
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.pool import NullPool

from reproq_prefork import (
    NewRun,
    Status,
    acancel,
    aenqueue,
    aenqueue_many,
    aget_run,
    arequeue,
    await_,
    cancel,
    enqueue,
    enqueue_many,
    get_run,
    requeue,
    task,
    wait,
)
from reproq_prefork.store import bulk

Connection = psycopg.Connection[Any]
PSYCOPG = "postgresql+psycopg"


@task
def welcome(user_id: int) -> None: ...


@task(unique=lambda user_id: f"welcome {user_id}")
def welcome_once(user_id: int) -> None: ...


def of_sqlalchemy(url: str, driver: str = PSYCOPG) -> str:
    return url.replace("postgresql", driver, 1)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = create_engine(of_sqlalchemy(database_url))
    yield engine
    engine.dispose()


def payloads(connection: Connection) -> list[Any]:
    return [row[0] for row in connection.execute("select payload from task_runs order by id")]


def use_everything(given: Any) -> None:
    """Each function, with what it does."""
    run = enqueue(given, {"n": 1}, unique_key="k")
    assert get_run(given, run.id) == run
    assert not enqueue(given, {"n": 1}, unique_key="k").created
    assert [each.payload for each in enqueue_many(given, [NewRun.of(2), NewRun.of(3)])] == [2, 3]
    cancelled = cancel(given, run.id)
    assert cancelled.status is Status.CANCELLED
    assert wait(given, run.id) == cancelled
    assert requeue(given, run_id=run.id).replay_of == run.id
    assert requeue(given, spec_hash=enqueue(given, 4).spec_hash).payload == 4


async def use_everything_async(given: Any) -> None:
    run = await aenqueue(given, {"n": 1}, unique_key="k")
    assert await aget_run(given, run.id) == run
    assert not (await aenqueue(given, {"n": 1}, unique_key="k")).created
    assert [each.payload for each in await aenqueue_many(given, [NewRun.of(2), NewRun.of(3)])] == [2, 3]
    cancelled = await acancel(given, run.id)
    assert cancelled.status is Status.CANCELLED
    assert await await_(given, run.id) == cancelled
    assert (await arequeue(given, run_id=run.id)).replay_of == run.id
    assert (await arequeue(given, spec_hash=(await aenqueue(given, 4)).spec_hash)).payload == 4


EVERYTHING = [{"n": 1}, 2, 3, {"n": 1}, 4, 4]


@pytest.fixture(params=["INSERT", "COPY"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "COPY":
        monkeypatch.setattr(bulk, "COPY_FROM", 1)
    return str(request.param)


# --- SQLAlchemy ---


class OwnSession(Session):
    """As SQLModel and Flask-SQLAlchemy have one: its own module is not SQLAlchemy's."""


SESSIONS: dict[str, Callable[[Engine], Any]] = {
    "Connection": lambda engine: engine.connect(),
    "Session": Session,
    "a Session of a subclass": OwnSession,
    "scoped_session": lambda engine: scoped_session(sessionmaker(engine)),
}


@pytest.mark.parametrize("kind", SESSIONS)
def test_a_session_commits_or_rolls_back_the_run(
    engine: Engine, connection: Connection, kind: str, way: str
) -> None:
    """Also if it has sent nothing itself before."""
    with closing(SESSIONS[kind](engine)) as session:
        use_everything(session)
        assert payloads(connection) == []
        session.commit()
        assert payloads(connection) == EVERYTHING
        enqueue(session, "rolled back")
        session.rollback()
        session.execute(text("create table mine ()"))
        enqueue(session, "with mine")
        session.commit()
        enqueue(session, "closed")
    assert payloads(connection) == [*EVERYTHING, "with mine"]
    assert connection.execute("select from mine").fetchall() == []


def test_a_run_is_in_the_savepoint_of_the_session(engine: Engine, connection: Connection) -> None:
    with Session(engine) as session, session.begin():
        enqueue(session, "kept")
        with session.begin_nested() as savepoint:
            enqueue(session, "rolled back")
            savepoint.rollback()
        with session.begin_nested():
            enqueue(session, "kept, too")
    with engine.begin() as own:
        enqueue(own, "of the block")
    assert payloads(connection) == ["kept", "kept, too", "of the block"]


def test_with_autocommit_a_run_is_saved_at_once(engine: Engine, connection: Connection) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as own:
        enqueue(own, 1)
        enqueue_many(own, [NewRun.of(2, unique_key="k")])
        assert payloads(connection) == [1, 2]


@pytest.mark.parametrize("kind", ["AsyncConnection", "AsyncSession", "async_scoped_session"])
def test_an_async_session_commits_or_rolls_back_the_run(
    database_url: str, connection: Connection, kind: str, way: str
) -> None:
    async def main() -> None:
        engine = create_async_engine(of_sqlalchemy(database_url), poolclass=NullPool)
        made: dict[str, Callable[[], Any]] = {
            "AsyncConnection": engine.connect,
            "AsyncSession": lambda: AsyncSession(engine),
            "async_scoped_session": lambda: async_scoped_session(
                async_sessionmaker(engine), asyncio.current_task
            ),
        }
        session = made[kind]()
        if kind == "AsyncConnection":
            await session.start()
        await use_everything_async(session)
        assert payloads(connection) == []
        await session.commit()
        assert payloads(connection) == EVERYTHING
        await aenqueue(session, "rolled back")
        await session.rollback()
        await welcome.aenqueue(session, 7)
        await session.commit()
        await aenqueue(session, "closed")
        await session.close()
        await engine.dispose()

    asyncio.run(main())
    assert payloads(connection)[:-1] == EVERYTHING
    assert payloads(connection)[-1]["args"] == [7]


# --- pools ---


@pytest.mark.parametrize("kind", [ConnectionPool, NullConnectionPool])
@pytest.mark.parametrize("autocommit", [True, False])
def test_each_call_on_a_pool_commits(
    database_url: str, connection: Connection, kind: type[ConnectionPool[Any]], autocommit: bool, way: str
) -> None:
    sizes: dict[str, Any] = {"max_size": 1} | ({} if kind is NullConnectionPool else {"min_size": 1})
    with kind(database_url, kwargs={"autocommit": autocommit}, open=True, **sizes) as pool:
        use_everything(pool)
        assert payloads(connection) == EVERYTHING
        connection.execute("alter table task_runs add constraint no_nines check (payload <> '9')")
        with pytest.raises(psycopg.errors.CheckViolation):
            enqueue_many(pool, [NewRun.of(8), NewRun.of(9)])
    assert payloads(connection) == EVERYTHING


@pytest.mark.parametrize("kind", [AsyncConnectionPool, AsyncNullConnectionPool])
def test_each_call_on_an_async_pool_commits(
    database_url: str, connection: Connection, kind: type[AsyncConnectionPool[Any]], way: str
) -> None:
    async def main() -> None:
        sizes: dict[str, Any] = {"max_size": 1} | ({} if kind is AsyncNullConnectionPool else {"min_size": 1})
        async with kind(database_url, open=False, **sizes) as pool:
            await use_everything_async(pool)
            run = await aenqueue(pool, 5)
            with pytest.raises(TimeoutError):
                await await_(pool, run.id, timeout=0.05)

    asyncio.run(main())
    assert payloads(connection) == [*EVERYTHING, 5]


# --- what is refused ---


def type_checkers_accept(
    pool: ConnectionPool[Any],
    null_pool: NullConnectionPool[Any],
    own: sqlalchemy.Connection,
    session: OwnSession,
    scoped: scoped_session[Session],
) -> None:
    for given in (pool, null_pool, own, session, scoped):
        enqueue(given, {})


async def type_checkers_accept_async(
    pool: AsyncConnectionPool[Any],
    own: AsyncConnection,
    session: AsyncSession,
    scoped: async_scoped_session[AsyncSession],
) -> None:
    for given in (pool, own, session, scoped):
        await aenqueue(given, {})


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(TypeError) as caught:
        call()
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert sentence.count(". ") == 0, "one sentence"
    return sentence


NOT_CONNECTIONS: list[tuple[object, str]] = [
    (
        7,
        "enqueue() cannot use an int: the first argument is the database connection, enqueue(connection, …).",
    ),
    (None, "enqueue() cannot use a NoneType: the first argument is the database connection"),
    (object(), "enqueue() cannot use an object: the first argument is"),
    ("postgresql://app:secret@db/app", "enqueue() cannot use a str: open a connection first"),
    (b"host=db", "enqueue() cannot use a bytes: open a connection first"),
    ({"name": "Ada"}, "enqueue() cannot use a dict: the first argument is"),
]


@pytest.mark.parametrize(("given", "sentence"), NOT_CONNECTIONS, ids=lambda value: type(value).__name__)
def test_what_is_not_a_connection_is_refused(given: Any, sentence: str) -> None:
    said = refused(lambda: enqueue(given, {}))
    assert said.startswith(sentence)
    assert "secret" not in said
    said = refused(lambda: asyncio.run(aenqueue(given, {})))
    assert said.startswith(sentence.replace("enqueue(", "aenqueue(")), said


def test_each_function_is_named() -> None:
    given: Any = 7
    with pytest.raises(TypeError):
        enqueue(7, {})  # type: ignore[arg-type]  # mypy finds it too
    for name, call in {
        "enqueue_many": lambda: enqueue_many(given, [NewRun.of(1)]),
        "get_run": lambda: get_run(given, 1),
        "cancel": lambda: cancel(given, 1),
        "requeue": lambda: requeue(given, run_id=1),
        "wait": lambda: wait(given, 1),
        "aenqueue_many": lambda: asyncio.run(aenqueue_many(given, [NewRun.of(1)])),
        "aget_run": lambda: asyncio.run(aget_run(given, 1)),
        "acancel": lambda: asyncio.run(acancel(given, 1)),
        "arequeue": lambda: asyncio.run(arequeue(given, run_id=1)),
        "await_": lambda: asyncio.run(await_(given, 1)),
    }.items():
        assert refused(call).startswith(f"{name}() cannot use an int: ")


def test_a_task_without_its_connection_says_what_is_missing() -> None:
    forgotten: Any = welcome
    assert "enqueue(connection, …)" in refused(lambda: forgotten.enqueue(7))
    assert "aenqueue(connection, …)" in refused(lambda: asyncio.run(forgotten.aenqueue(7)))
    forgotten = welcome_once
    assert "enqueue(connection, …)" in refused(lambda: forgotten.enqueue(7)), "its key needs the argument"
    assert "aenqueue(connection, …)" in refused(lambda: asyncio.run(forgotten.aenqueue(7)))


def test_the_drivers_that_are_not_psycopg_3_are_refused(database_url: str) -> None:
    with closing(psycopg2.connect(database_url)) as other, closing(other.cursor()) as cursor:
        for given in (other, cursor):
            said = refused(lambda given=given: enqueue(given, {}))  # type: ignore[misc]
            assert said.startswith("enqueue() cannot use a psycopg2.")
            assert "only psycopg 3 is supported" in said
            assert "`psycopg.connect(…)`, or use the SQL function reproq_enqueue() on yours" in said

    async def main() -> None:
        other = await asyncpg.connect(database_url)
        async with (
            asyncpg.create_pool(database_url, min_size=1, max_size=1) as pool,
            pool.acquire() as acquired,
        ):
            for given in (other, pool, acquired):
                with pytest.raises(TypeError, match=r"^aenqueue\(\) cannot use an asyncpg.*AsyncConnection"):
                    await aenqueue(given, {})
                with pytest.raises(TypeError, match=r"^enqueue\(\) cannot use an asyncpg.*psycopg 3"):
                    enqueue(given, {})
        await other.close()

    asyncio.run(main())


def test_a_connection_of_the_other_kind_is_refused(
    database_url: str, connection: Connection, engine: Engine
) -> None:
    blocks = "it blocks, so call enqueue(connection, …) without await."
    for_asyncio = "it is for asyncio, so call `await aenqueue(connection, …)`."
    with (
        ConnectionPool(database_url, open=True, min_size=1) as pool,
        engine.connect() as own,
        Session(engine) as session,
    ):
        for given in (connection, pool, own, session, engine):
            assert refused(lambda given=given: asyncio.run(aenqueue(given, {}))).endswith(blocks)  # type: ignore[misc]
    with pytest.raises(TypeError, match=r"so call wait\(connection, …\) without await"):
        asyncio.run(await_(connection, 1))  # type: ignore[arg-type]

    async def main() -> None:
        engine = create_async_engine(of_sqlalchemy(database_url))
        async with (
            await psycopg.AsyncConnection.connect(database_url) as own,
            AsyncConnectionPool(database_url, open=False, min_size=1) as pool,
            engine.connect() as of_engine,
            AsyncSession(engine) as session,
        ):
            for given in (own, pool, of_engine, session, engine):
                assert refused(lambda given=given: enqueue(given, {})).endswith(for_asyncio)  # type: ignore[misc]
            said = await of_engine.run_sync(lambda inner: refused(lambda: enqueue(inner, {})))
            assert said.endswith(for_asyncio)
            with pytest.raises(TypeError, match=r"so call `await await_\(connection, …\)`"):
                wait(own, 1)  # type: ignore[arg-type]
        await engine.dispose()

    asyncio.run(main())
    assert payloads(connection) == []


def test_a_cursor_is_refused_with_its_connection(connection: Connection) -> None:
    with connection.cursor() as cursor:
        assert "enqueue(cursor.connection, …)" in refused(lambda: enqueue(cursor, {}))  # type: ignore[arg-type]


def test_a_connection_that_is_not_open_yet_is_refused(database_url: str, engine: Engine) -> None:
    opening: Any = psycopg.AsyncConnection.connect(database_url)
    said = "await it first, and call aenqueue(connection, …) with what it returns"
    assert said in refused(lambda: asyncio.run(aenqueue(opening, {})))
    opening.close()
    said = "enter it first, `with … as connection`, and call enqueue(connection, …) inside"
    assert said in refused(lambda: enqueue(engine.begin(), {}))  # type: ignore[arg-type]
    with ConnectionPool(database_url, open=True, min_size=1) as pool:
        assert said in refused(lambda: enqueue(pool.connection(), {}))  # type: ignore[arg-type]


def test_the_connection_of_the_driver_is_asked_for(engine: Engine, connection: Connection) -> None:
    with closing(engine.raw_connection()) as raw:
        said = refused(lambda: enqueue(raw, {}))
        assert "enqueue(connection.driver_connection, …)" in said
        given: Any = raw.driver_connection
        enqueue(given, 1)
        raw.commit()
    assert payloads(connection) == [1]


def test_of_sqlalchemy_what_has_no_transaction_is_refused(engine: Engine) -> None:
    assert "in `with engine.begin() as connection`" in refused(lambda: enqueue(engine, {}))  # type: ignore[arg-type]
    assert "so call enqueue(session, …) with one of them" in refused(
        lambda: enqueue(sessionmaker(engine), {})  # type: ignore[arg-type]
    )
    assert "the first argument is the database connection" in refused(lambda: enqueue(text("select 1"), {}))  # type: ignore[arg-type]
    of_asyncio: AsyncEngine = create_async_engine(engine.url)
    assert "in `async with engine.begin() as connection`" in refused(
        lambda: asyncio.run(aenqueue(of_asyncio, {}))  # type: ignore[arg-type]
    )


def test_sqlalchemy_over_another_driver_is_refused(database_url: str, connection: Connection) -> None:
    for url in (of_sqlalchemy(database_url, "postgresql+psycopg2"), "sqlite://"):
        engine = create_engine(url)
        with engine.connect() as own, Session(engine) as session:
            for given in (own, session, engine):
                said = refused(lambda given=given: enqueue(given, {}))  # type: ignore[misc]
                assert f"its driver is {engine.dialect.driver}, and only psycopg 3 is supported" in said
                assert "create_engine('postgresql+psycopg://…')" in said
        engine.dispose()

    async def main() -> None:
        engine = create_async_engine(of_sqlalchemy(database_url, "postgresql+asyncpg"), poolclass=NullPool)
        async with engine.connect() as own, AsyncSession(engine) as session:
            for given in (own, session, engine):
                with pytest.raises(
                    TypeError, match=r"its driver is asyncpg.*create_async_engine\('postgresql"
                ):
                    await aenqueue(given, {})  # type: ignore[arg-type]
        await engine.dispose()

    asyncio.run(main())


def test_nothing_of_other_libraries_is_imported_for_a_psycopg_connection(database_url: str) -> None:
    program = """
import sys, psycopg
from reproq_prefork import enqueue, get_run, wait
with psycopg.connect(sys.argv[1]) as connection:
    enqueue(connection, {})
try:
    enqueue(7, {})
except TypeError:
    pass
print([name for name in ("sqlalchemy", "psycopg_pool", "django", "asgiref") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", program, database_url], capture_output=True, text=True, timeout=50, check=True
    )
    assert done.stdout == "[]\n"
