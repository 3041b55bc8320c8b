"""Waits for the end of a run. It wakes on NOTIFY, if that can reach us, and also polls.

The wait has a connection of its own, since the caller's may be inside a transaction: there no notification is
delivered, and a statement that is refused would end it. It registers in `reproq_waiters`, and only then the end
is notified. If it may not register (a role without the right, a read-only session or server), or gets no answer
in time, it polls. It always reads the run through the caller's own connection (`look`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from reproq_prefork.store.deadline import DeadlineConnection
from reproq_prefork.store.statements import statement

LOOK_FIRST_S = 0.01
LOOK_INTERVAL_S = 0.25  # without notifications
LISTENING_LOOK_INTERVAL_S = 2.0  # a notification may be lost with its connection
MAX_WAIT_S = 3600.0  # the limit of reproq_await_run; polling goes on after it
# Any login may send notifications. If one wait gets more than MAX_OTHERS for other runs, or if there are
# MAX_FALSE notifications of this run that are not its end, listening costs more than polling.
MAX_OTHERS = 10_000
MAX_FALSE = 10
CONNECT_TIMEOUT_S = 5
SET_UP_TIMEOUT_S = 2.0  # for each of the few statements that neither read the result nor wait


@dataclass(frozen=True, slots=True)
class Awaited:
    """The run whose end is awaited. `name`: what messages call it. `parameters`: those of a connection to its
    database."""

    run_id: int
    name: str
    log: logging.Logger
    parameters: Callable[[], Mapping[str, Any]]


def wait(awaited: Awaited, look: Callable[[], bool], timeout: float | None) -> None:
    """Wait until `look` says that the run has finished, for at most `timeout` seconds. Raises TimeoutError."""
    gives_up_at = None if timeout is None else time.monotonic() + timeout
    if look():
        return
    with _listener(awaited) as listener:
        pace, ear = _Pace(gives_up_at), _Ear(awaited.run_id)
        while (wait_s := pace.next_s(is_told=listener is not None)) is not None:
            listener = _heard(listener, ear, wait_s)
            if look():
                return
    raise _too_late(awaited, timeout)


async def await_(awaited: Awaited, look: Callable[[], Awaitable[bool]], timeout: float | None) -> None:
    """See wait(). Other tasks of the event loop go on meanwhile."""
    gives_up_at = None if timeout is None else time.monotonic() + timeout
    if await look():
        return
    async with _async_listener(awaited) as listener:
        pace, ear = _Pace(gives_up_at), _Ear(awaited.run_id)
        while (wait_s := pace.next_s(is_told=listener is not None)) is not None:
            listener = await _heard_async(listener, ear, wait_s)
            if await look():
                return
    raise _too_late(awaited, timeout)


def _too_late(awaited: Awaited, timeout: float | None) -> TimeoutError:
    return TimeoutError(f"{awaited.name} has not finished within {timeout:g} s")


def _heard(
    listener: psycopg.Connection[Any] | None, ear: _Ear, wait_s: float
) -> psycopg.Connection[Any] | None:
    """Wait until the end is notified, or for `wait_s`. Returns the listener; None once it cannot be used."""
    if listener is None:
        time.sleep(wait_s)
        return None
    try:
        ear.wait_begins()
        with contextlib.closing(listener.notifies(timeout=wait_s)) as heard:
            for said in heard:
                if ear.is_announced(said):
                    return listener
                if ear.is_flooded:
                    break
    except psycopg.Error:
        return None
    if ear.is_flooded:
        listener.close()  # see _listener
        return None
    return listener


async def _heard_async(
    listener: psycopg.AsyncConnection[Any] | None, ear: _Ear, wait_s: float
) -> psycopg.AsyncConnection[Any] | None:
    """See _heard()."""
    if listener is None:
        await asyncio.sleep(wait_s)
        return None
    try:
        ear.wait_begins()
        async with contextlib.aclosing(listener.notifies(timeout=wait_s)) as heard:
            async for said in heard:
                if ear.is_announced(said):
                    return listener
                if ear.is_flooded:
                    break
    except psycopg.Error:
        return None
    if ear.is_flooded:
        await listener.close()
        return None
    return listener


class _Ear:
    """Distinguishes the notification of a run's end from others, and notices a flood of either."""

    def __init__(self, run_id: int) -> None:
        self._run_id = str(run_id)
        self._others = self._announcements = 0

    def wait_begins(self) -> None:
        self._others = 0

    def is_announced(self, said: psycopg.Notify) -> bool:
        if said.payload == self._run_id and self._announcements < MAX_FALSE:
            self._announcements += 1
            return True
        self._others += 1
        return False

    @property
    def is_flooded(self) -> bool:
        return self._others > MAX_OTHERS or self._announcements >= MAX_FALSE


class _Pace:
    """How long to wait before each look at the result."""

    def __init__(self, gives_up_at: float | None) -> None:
        self._gives_up_at = gives_up_at
        self._wait_s = LOOK_FIRST_S / 2

    def next_s(self, *, is_told: bool) -> float | None:
        """None: the time is over."""
        self._wait_s = min(2 * self._wait_s, LISTENING_LOOK_INTERVAL_S if is_told else LOOK_INTERVAL_S)
        left_s = self._wait_s if self._gives_up_at is None else self._gives_up_at - time.monotonic()
        return min(self._wait_s, left_s) if left_s > 0 else None


def _parameters(awaited: Awaited) -> Mapping[str, Any]:
    return {**awaited.parameters(), "autocommit": True, "connect_timeout": CONNECT_TIMEOUT_S}


@contextlib.contextmanager
def _listener(awaited: Awaited) -> Iterator[psycopg.Connection[Any] | None]:
    """A connection that is notified of the end; None: there cannot be one."""
    waiting = _waiting(awaited)
    connection = _opened(awaited, waiting)
    if connection is None:
        yield None
        return
    try:
        yield connection
        with contextlib.suppress(psycopg.Error), _in_time(connection):
            connection.execute(statement("remove_waiter"), waiting)
    finally:
        _give_up(connection)


def _opened(awaited: Awaited, waiting: Mapping[str, Any]) -> DeadlineConnection | None:
    """A connection that is notified of the end; None: the server refuses that, for any reason."""
    connection = None
    try:
        connection = DeadlineConnection.connect(**_parameters(awaited))
        with _in_time(connection):
            connection.execute(statement("listen_finished"))
            row = connection.execute(statement("add_waiter"), waiting).fetchone()
    except BaseException as refusal:
        if connection is not None:
            _give_up(connection)
        if not isinstance(refusal, psycopg.Error):
            raise
        _note(awaited, refusal)
        return None
    if not (row and row[0]):
        connection.close()  # the server stores notifications for a listener that does not read them
        return None
    return connection


@contextlib.contextmanager
def _in_time(connection: DeadlineConnection) -> Iterator[None]:
    """Inside, a statement gets its answer in time or raises. The wait for a notification has its own limit."""
    connection.deadline_s = SET_UP_TIMEOUT_S
    yield
    connection.deadline_s = math.inf


def _give_up(connection: psycopg.Connection[Any]) -> None:
    """Close it. A statement without an answer in time must not go on waiting in the server."""
    if connection.info.transaction_status == TransactionStatus.ACTIVE:
        with contextlib.suppress(psycopg.Error):
            connection.cancel_safe(timeout=SET_UP_TIMEOUT_S)
    connection.close()


@contextlib.asynccontextmanager
async def _async_listener(awaited: Awaited) -> AsyncIterator[psycopg.AsyncConnection[Any] | None]:
    """See _listener()."""
    waiting = _waiting(awaited)
    connection = await _opened_async(awaited, waiting)
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


async def _opened_async(awaited: Awaited, waiting: Mapping[str, Any]) -> psycopg.AsyncConnection[Any] | None:
    """See _opened(). If a statement is interrupted here, psycopg cancels it in the server."""
    connection = None
    try:
        connection = await psycopg.AsyncConnection.connect(**_parameters(awaited))
        async with asyncio.timeout(SET_UP_TIMEOUT_S):
            await connection.execute(statement("listen_finished"))
            row = await (await connection.execute(statement("add_waiter"), waiting)).fetchone()
    except BaseException as refusal:
        if connection is not None:
            await connection.close()
        if not isinstance(refusal, (psycopg.Error, TimeoutError)):
            raise
        _note(awaited, refusal)
        return None
    if not (row and row[0]):
        await connection.close()
        return None
    return connection


def _waiting(awaited: Awaited) -> Mapping[str, Any]:
    return {"run_id": awaited.run_id, "waiter": secrets.token_hex(8), "seconds": MAX_WAIT_S}


def _note(awaited: Awaited, refusal: BaseException) -> None:
    awaited.log.debug(
        "polling for the end of %s, since no notification of it can come here: %s", awaited.name, refusal
    )
