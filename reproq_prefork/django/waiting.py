"""Waiting for the end of a run: told by NOTIFY where that can reach us, and looking now and then in any case.

The wait has a connection of its own, since Django's may be inside a transaction: no notification is delivered
there, and a statement that is refused would end it. It says in `reproq_waiters` that somebody waits, and only then
is an end announced. Where it may not say so (a role without the right, a session or a server that only reads), or
gets no answer in time, the end is looked for. What is looked at is always the result as Django's own connection
sees it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import secrets
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import psycopg
from django.db import connections
from psycopg.pq import TransactionStatus

from reproq_prefork.django.results import database_of
from reproq_prefork.store.connection import DeadlineConnection
from reproq_prefork.store.statements import statement

_log = logging.getLogger("reproq_prefork.django")

LOOK_FIRST_S = 0.01
LOOK_INTERVAL_S = 0.25  # while nobody tells
LISTENING_LOOK_INTERVAL_S = 2.0  # a notification may be lost with its connection
MAX_WAIT_S = 3600.0  # after it the entry in reproq_waiters is anybody's to remove; looking goes on
CONNECT_TIMEOUT_S = 5
SET_UP_TIMEOUT_S = 2.0  # for each of the few statements that are neither a look nor a wait

# Of what Django passes to psycopg, what is of no use to a connection that only listens.
_DJANGOS_OWN = ("context", "cursor_factory", "prepare_threshold", "server_side_binding")


def wait(result: Any, timeout: float | None) -> Any:
    """See TaskResult.wait()."""
    gives_up_at = None if timeout is None else time.monotonic() + timeout
    result.refresh()
    if result.is_finished:
        return result
    with _listener(result) as listener:
        for wait_s in _waits_s(result, gives_up_at, is_told=listener is not None):
            listener = _heard(listener, wait_s)
            result.refresh()
            if result.is_finished:
                return result
    raise TimeoutError(f"task {result.id} has not finished within {timeout:g} s")


async def await_(result: Any, timeout: float | None) -> Any:
    """See TaskResult.await_()."""
    gives_up_at = None if timeout is None else time.monotonic() + timeout
    await result.arefresh()
    if result.is_finished:
        return result
    async with _async_listener(result) as listener:
        for wait_s in _waits_s(result, gives_up_at, is_told=listener is not None):
            listener = await _heard_async(listener, wait_s)
            await result.arefresh()
            if result.is_finished:
                return result
    raise TimeoutError(f"task {result.id} has not finished within {timeout:g} s")


def _heard(listener: psycopg.Connection[Any] | None, wait_s: float) -> psycopg.Connection[Any] | None:
    """Wait until something is heard, or so long; gives the listener, None once its connection is lost."""
    if listener is None:
        time.sleep(wait_s)
        return None
    try:
        for _ in listener.notifies(timeout=wait_s, stop_after=1):
            break
    except psycopg.Error:
        return None
    return listener


async def _heard_async(
    listener: psycopg.AsyncConnection[Any] | None, wait_s: float
) -> psycopg.AsyncConnection[Any] | None:
    """See _heard()."""
    if listener is None:
        await asyncio.sleep(wait_s)
        return None
    try:
        async for _ in listener.notifies(timeout=wait_s, stop_after=1):
            break
    except psycopg.Error:
        return None
    return listener


def _waits_s(result: Any, gives_up_at: float | None, *, is_told: bool) -> Iterator[float]:
    """How long to wait before each look; ends when the time is up."""
    longest_s = LISTENING_LOOK_INTERVAL_S if is_told else LOOK_INTERVAL_S
    wait_s = LOOK_FIRST_S
    while True:
        left_s = longest_s if gives_up_at is None else gives_up_at - time.monotonic()
        if left_s <= 0:
            return
        yield min(wait_s, left_s)
        wait_s = min(wait_s * 2, longest_s)


def _parameters(result: Any) -> Mapping[str, Any]:
    """What to connect with."""
    given = connections[database_of(result)].get_connection_params()
    own = {name: value for name, value in given.items() if name not in _DJANGOS_OWN}
    return {**own, "autocommit": True, "connect_timeout": CONNECT_TIMEOUT_S}


@contextlib.contextmanager
def _listener(result: Any) -> Iterator[psycopg.Connection[Any] | None]:
    """A connection that hears of the end; None: none can be had."""
    waiting = _waiting(result)
    connection = _opened(result, waiting)
    if connection is None:
        yield None
        return
    try:
        yield connection
        with contextlib.suppress(psycopg.Error), _in_time(connection):
            connection.execute(statement("remove_waiter"), waiting)
    finally:
        _give_up(connection)


def _opened(result: Any, waiting: Mapping[str, Any]) -> DeadlineConnection | None:
    """One to which the end is announced; None: the server refuses that, for whatever reason."""
    connection = None
    try:
        connection = DeadlineConnection.connect(**_parameters(result))
        with _in_time(connection):
            connection.execute(statement("listen_finished"))
            connection.execute(statement("add_waiter"), waiting)
    except BaseException as refusal:
        if connection is not None:
            _give_up(connection)
        if not isinstance(refusal, psycopg.Error):
            raise
        _note(result, refusal)
        return None
    return connection


@contextlib.contextmanager
def _in_time(connection: DeadlineConnection) -> Iterator[None]:
    """What is asked meanwhile is answered in time or is an error; the wait for a notification has its own end."""
    connection.deadline_s = SET_UP_TIMEOUT_S
    yield
    connection.deadline_s = math.inf


def _give_up(connection: psycopg.Connection[Any]) -> None:
    """Close it; a statement that was not answered in time must not go on waiting in the server."""
    if connection.info.transaction_status == TransactionStatus.ACTIVE:
        with contextlib.suppress(psycopg.Error):
            connection.cancel_safe(timeout=SET_UP_TIMEOUT_S)
    connection.close()


@contextlib.asynccontextmanager
async def _async_listener(result: Any) -> AsyncIterator[psycopg.AsyncConnection[Any] | None]:
    """See _listener()."""
    waiting = _waiting(result)
    connection = await _opened_async(result, waiting)
    if connection is None:
        yield None
        return
    try:
        try:
            yield connection
        finally:
            with contextlib.suppress(psycopg.Error, TimeoutError):
                async with asyncio.timeout(SET_UP_TIMEOUT_S):
                    await connection.execute(statement("remove_waiter"), waiting)
    finally:
        await connection.close()


async def _opened_async(result: Any, waiting: Mapping[str, Any]) -> psycopg.AsyncConnection[Any] | None:
    """See _opened(). A statement that is interrupted here is cancelled in the server by psycopg."""
    connection = None
    try:
        connection = await psycopg.AsyncConnection.connect(**_parameters(result))
        async with asyncio.timeout(SET_UP_TIMEOUT_S):
            await connection.execute(statement("listen_finished"))
            await connection.execute(statement("add_waiter"), waiting)
    except BaseException as refusal:
        if connection is not None:
            await connection.close()
        if not isinstance(refusal, (psycopg.Error, TimeoutError)):
            raise
        _note(result, refusal)
        return None
    return connection


def _waiting(result: Any) -> Mapping[str, Any]:
    return {"run_id": int(result.id), "waiter": secrets.token_hex(8), "seconds": MAX_WAIT_S}


def _note(result: Any, refusal: BaseException) -> None:
    _log.debug("the end of task %s is looked for, since it cannot be announced here: %s", result.id, refusal)
