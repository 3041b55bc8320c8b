"""The types of what callers may give as a connection. `callers` finds out which of them an object is.

The libraries are described by what tells them apart: not everybody has them, and a type that cannot be found would
accept anything.
"""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Protocol, TypeAlias

import psycopg


class SqlalchemyConnection(Protocol):
    """A Connection or Session of SQLAlchemy, also a scoped session, over psycopg 3."""

    def begin_nested(self) -> Any: ...
    def commit(self) -> None: ...


class AsyncSqlalchemyConnection(Protocol):
    """An AsyncConnection or AsyncSession of SQLAlchemy, also a scoped session, over psycopg 3."""

    def begin_nested(self) -> Any: ...
    def commit(self) -> Awaitable[None]: ...


class Pool(Protocol):
    """A ConnectionPool of psycopg_pool."""

    def connection(self) -> AbstractContextManager[psycopg.Connection[Any]]: ...


class AsyncPool(Protocol):
    """An AsyncConnectionPool of psycopg_pool."""

    def connection(self) -> AbstractAsyncContextManager[psycopg.AsyncConnection[Any]]: ...


class DjangoConnection(Protocol):
    """`django.db.connection`, or one of `django.db.connections`."""

    alias: str
    vendor: str


Connection: TypeAlias = psycopg.Connection[Any] | SqlalchemyConnection | Pool | DjangoConnection
AsyncConnection: TypeAlias = (
    psycopg.AsyncConnection[Any] | AsyncSqlalchemyConnection | AsyncPool | DjangoConnection
)
