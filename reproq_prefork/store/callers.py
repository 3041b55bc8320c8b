"""Finds out what a caller calls a connection, and how to send on it in the transaction that is open there.

A psycopg connection is used as it is. Connections of other libraries have an adapter, which is imported only if
the caller's object is of that library: the class of the object, or a base class, is in its package. An adapter
is named here as text, since the store does not depend on these libraries, nor on the Django wing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Concatenate, ParamSpec, TypeVar

import psycopg

from reproq_prefork.store.psycopg_senders import AsyncPsycopgSender, PsycopgSender
from reproq_prefork.store.refused_callers import refusal
from reproq_prefork.store.script import Script, aplay, play
from reproq_prefork.store.sender import Session

P = ParamSpec("P")
T = TypeVar("T")
MakesScript = Callable[Concatenate[Session, P], Script[T]]

# Each has a `send` and an `asend`: the name of the function that was called, the caller's object, and a
# function that makes the script of a session. They return its result, and raise TypeError.
_ADAPTERS: Mapping[str, str] = {
    "django": "reproq_prefork.django.sender",
    "psycopg_pool": "reproq_prefork.store.pools",
    "sqlalchemy": "reproq_prefork.store.sqlalchemy_connections",
}


def send(call: str, connection: object, script: MakesScript[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Play a script on the caller's `connection`. `call`: the function that the caller has called, for errors.

    Raises TypeError, in one sentence, if `connection` cannot be used.
    """
    if isinstance(connection, psycopg.Connection):  # nearly always
        own = PsycopgSender(connection)
        return play(own, script(own, *args, **kwargs))
    result: T = _adapter_for(call, connection).send(
        call, connection, lambda sender: script(sender, *args, **kwargs)
    )
    return result


async def asend(
    call: str, connection: object, script: MakesScript[P, T], /, *args: P.args, **kwargs: P.kwargs
) -> T:
    """See send()."""
    if isinstance(connection, psycopg.AsyncConnection):
        own = AsyncPsycopgSender(connection)
        return await aplay(own, script(own, *args, **kwargs))
    adapter = _adapter_for(call, connection)
    result: T = await adapter.asend(call, connection, lambda sender: script(sender, *args, **kwargs))
    return result


def check_connection(call: str, connection: object) -> None:
    """Raise the TypeError of `send` for an object that is not a connection at all."""
    if not isinstance(connection, psycopg.Connection | psycopg.AsyncConnection):
        _adapter_for(call, connection)


def _adapter_for(call: str, connection: object) -> Any:
    # Not `type`: a proxy such as those of wrapt has the class of what it stands for.
    for base in connection.__class__.__mro__:
        package = base.__module__.partition(".")[0]
        if package in _ADAPTERS:
            return import_module(_ADAPTERS[package])
    raise refusal(call, connection)
