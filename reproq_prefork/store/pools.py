"""Sends on a connection of a pool of psycopg_pool, in a transaction of its own, which is committed at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from psycopg_pool import AsyncConnectionPool, ConnectionPool

from reproq_prefork.store.psycopg_senders import AsyncPsycopgSender, PsycopgSender
from reproq_prefork.store.refused_callers import other_kind, refusal
from reproq_prefork.store.script import Script, aplay, play
from reproq_prefork.store.sender import Session

T = TypeVar("T")


def send(call: str, given: object, make_script: Callable[[Session], Script[T]]) -> T:
    if not isinstance(given, ConnectionPool):
        raise refusal(call, given, other_kind(call) if isinstance(given, AsyncConnectionPool) else None)
    with given.connection() as connection:
        sender = PsycopgSender(connection)
        return play(sender, make_script(sender))


async def asend(call: str, given: object, make_script: Callable[[Session], Script[T]]) -> T:
    if not isinstance(given, AsyncConnectionPool):
        raise refusal(call, given, other_kind(call) if isinstance(given, ConnectionPool) else None)
    async with given.connection() as connection:
        sender = AsyncPsycopgSender(connection)
        return await aplay(sender, make_script(sender))
