"""Sends on the driver's connection of a SQLAlchemy connection or session, in the transaction that is open there.

If none is open, SQLAlchemy begins one, as for a statement of its own: the caller commits or rolls back. Errors
are those of psycopg, not of SQLAlchemy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import psycopg
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
)
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.pool import PoolProxiedConnection

from reproq_prefork.store.psycopg_senders import AsyncPsycopgSender, PsycopgSender
from reproq_prefork.store.refused_callers import is_async, other_kind, refusal
from reproq_prefork.store.script import Script, aplay, play
from reproq_prefork.store.sender import Session as SenderSession

T = TypeVar("T")

_BLOCKING = (Connection, Session, scoped_session)
_OF_ASYNCIO = (AsyncConnection, AsyncSession, async_scoped_session)


def send(call: str, given: Any, make_script: Callable[[SenderSession], Script[T]]) -> T:
    if not isinstance(given, _BLOCKING):
        raise refusal(call, given, _right_call(given, call))
    connection = given if isinstance(given, Connection) else given.connection()
    driver = connection.connection.driver_connection
    if not isinstance(driver, psycopg.Connection):
        raise refusal(call, given, _right_driver(connection, call))
    if not connection.in_transaction():
        connection.begin()
    sender = PsycopgSender(driver)
    return play(sender, make_script(sender))


async def asend(call: str, given: Any, make_script: Callable[[SenderSession], Script[T]]) -> T:
    if not isinstance(given, _OF_ASYNCIO):
        raise refusal(call, given, _right_call(given, call))
    connection = given if isinstance(given, AsyncConnection) else await given.connection()
    driver = (await connection.get_raw_connection()).driver_connection
    if not isinstance(driver, psycopg.AsyncConnection):
        raise refusal(call, given, _right_driver(connection, call))
    if not connection.in_transaction():
        await connection.begin()
    sender = AsyncPsycopgSender(driver)
    return await aplay(sender, make_script(sender))


def _right_call(given: object, call: str) -> str | None:
    if isinstance(given, (_BLOCKING, _OF_ASYNCIO)):
        return other_kind(call)
    if isinstance(given, Engine | AsyncEngine):
        if not _is_psycopg(given):
            return _right_driver(given, call)
        if is_async(call) != isinstance(given, AsyncEngine):
            return other_kind(call)
        opened = "async with engine.begin()" if is_async(call) else "with engine.begin()"
        return f"it has no transaction of its own, so call {call}(connection, …) in `{opened} as connection`"
    if isinstance(given, PoolProxiedConnection):  # of `raw_connection`
        return f"give it the connection of the driver, {call}(connection.driver_connection, …)"
    if isinstance(given, sessionmaker | async_sessionmaker):
        return f"it makes sessions, so call {call}(session, …) with one of them"
    return None


def _right_driver(given: Connection | AsyncConnection | Engine | AsyncEngine, call: str) -> str:
    if _is_psycopg(given) and isinstance(given, Connection):  # of `run_sync`
        return other_kind(call)
    create = "create_async_engine" if is_async(call) else "create_engine"
    return (
        f"its driver is {given.dialect.driver}, and only psycopg 3 is supported, so call {call}(connection, …) "
        f"with one of {create}('postgresql+psycopg://…')"
    )


def _is_psycopg(given: Connection | AsyncConnection | Engine | AsyncEngine) -> bool:
    return given.dialect.driver in {"psycopg", "psycopg_async"}
