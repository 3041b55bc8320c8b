"""One connection to PostgreSQL that cannot hang, and whose errors say what the caller may do next.

A server that stops answering (a stopped process, a dead host behind a live proxy) keeps a client waiting for ever.
`statement_timeout` does not help, since the server enforces it. So each statement has a deadline in the client
too. After it, or after any broken connection, the outcome of the statement is *unknown*.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import conninfo
from psycopg.rows import namedtuple_row
from psycopg.types.numeric import Int8Dumper

from reproq_prefork.errors import DatabaseUnavailable, ReproqError
from reproq_prefork.store.deadline import (
    CLIENT_DEADLINE_S,
    DeadlineConnection,
    FirstStatements,
    ServerProcess,
)
from reproq_prefork.store.fetching import fetch
from reproq_prefork.store.iso_times import IsoTimestamptzLoader
from reproq_prefork.store.opening import GoesOn, always, longest_open_s, open_connection
from reproq_prefork.store.outcomes import StatementRefused, sentence_of, translated_errors
from reproq_prefork.store.server import Server, why_unusable
from reproq_prefork.store.statements import statement

CONNECT_TIMEOUT_S = 5
STATEMENT_TIMEOUT_S = 5.0
LOCK_TIMEOUT_S = 2.0
IDLE_IN_TRANSACTION_TIMEOUT_S = 60.0
MIGRATION_TIMEOUT_S = 86_400.0
RECONNECT_BASE_S = 0.1
BACKEND_GONE_TIMEOUT_S = 2.0
UNSEEN_S = 30.0  # for this long, a server process that nobody can see may still commit a claim
BACKEND_GONE_POLL_S = 0.002
RECONNECT_MAX_S = 5.0
# Defaults that the user's DATABASE_URL may override, and (OURS) what it may not. tcp_user_timeout is in
# milliseconds.
CONNECTION_DEFAULTS: Mapping[str, str] = {
    "connect_timeout": str(CONNECT_TIMEOUT_S),
    "keepalives": "1",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}
OURS: Mapping[str, str] = {"client_encoding": "UTF8"}


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """How long a statement may take, wait for a lock, and wait for an answer."""

    statement_s: float = STATEMENT_TIMEOUT_S
    lock_s: float = LOCK_TIMEOUT_S
    client_s: float = CLIENT_DEADLINE_S


ORDINARY_LIMITS = TimeLimits()
# Nobody can say how long an index over a large table takes. A migration may have to wait for another such
# migration.
MIGRATION_LIMITS = TimeLimits(MIGRATION_TIMEOUT_S, MIGRATION_TIMEOUT_S, MIGRATION_TIMEOUT_S)


def connect(
    database_url: str,
    *,
    application_name: str,
    limits: TimeLimits = ORDINARY_LIMITS,
    for_writing: bool = True,
    makes_schema: bool = False,
    asks_system: bool = False,
    system: int | None = None,
    goes_on: GoesOn = always,
) -> DeadlineConnection:
    """Open an autocommit connection with all settings that its statements depend on. Raises `DatabaseUnavailable`.

    It also raises if the server cannot be used, such as a standby. `for_writing` False: the caller only reads, so
    a standby will do. `system`: the identifier that the server must have. `asks_system`: any server will do, and
    the caller wants to know its identifier. `makes_schema`: new tables go where the login's own search path says.
    `goes_on`: see `open_connection`.
    """
    given = _given(database_url)
    address = _address(given)
    parameters = {**CONNECTION_DEFAULTS, "application_name": application_name, **given, **OURS}
    try:
        opened = open_connection(parameters, goes_on=goes_on, for_writing=for_writing)
    except psycopg.Error as error:
        raise DatabaseUnavailable(address, sentence_of(error)) from None
    connection = DeadlineConnection(opened, row_factory=namedtuple_row)
    try:
        with translated_errors():
            connection.autocommit = True
            connection.prepare_threshold = None
            connection.deadline_s = limits.client_s
            _ask_server(connection, asks_system=asks_system or system is not None)
            _set_up(connection, limits, catalog_first=not makes_schema)
        reason = why_unusable(connection.server, for_writing=for_writing, system=system)
        if reason:
            raise DatabaseUnavailable(address, reason)
    except DatabaseUnavailable:
        connection.close()
        raise
    except ReproqError as error:
        connection.close()
        raise DatabaseUnavailable(address, str(error)) from None
    except BaseException:
        connection.close()
        raise
    return connection


def longest_connect_s(database_url: str) -> float:
    """How long `connect` may take to find an address that answers. Raises `DatabaseUnavailable`."""
    given = _given(database_url)
    try:
        return longest_open_s({**CONNECTION_DEFAULTS, **given})
    except psycopg.Error as error:
        raise DatabaseUnavailable(_address(given), sentence_of(error)) from None


def _given(database_url: str) -> Mapping[str, Any]:
    try:
        return conninfo.conninfo_to_dict(database_url)
    except psycopg.ProgrammingError:
        # libpq's own message quotes the URL, which may hold a password.
        raise DatabaseUnavailable("named by DATABASE_URL", "the URL cannot be read") from None


def _address(parameters: Mapping[str, Any]) -> str:
    """`dbname at host:port`, from the URL; never a user name or a password."""
    host = parameters.get("host") or "the default host"
    port = f":{parameters['port']}" if parameters.get("port") else ""
    return f"{parameters.get('dbname') or 'of the default name'} at {host}{port}"


def _ask_server(connection: DeadlineConnection, *, asks_system: bool) -> None:
    """Learn which server answers, which of its processes, and whether that process is ours alone."""
    connection.first = FirstStatements.of(statement("without_jit"), statement("with_time"))
    (row,) = fetch(connection, statement("server_facts"), {})
    system = None
    if asks_system:
        with suppress(StatementRefused):  # the function is forbidden or missing: then any server will do
            system = fetch(connection, statement("server_identity"), {})[0].system
    connection.server = Server.of_row(row, system)
    connection.backend = ServerProcess(pid=row.pid, pooled=row.pid != connection.info.backend_pid)


def _set_up(connection: DeadlineConnection, limits: TimeLimits, *, catalog_first: bool) -> None:
    # One integer type for all integers: psycopg picks the smallest type that fits the value. Then each combination
    # of types would be prepared (and planned) as another statement.
    connection.adapters.register_dumper(int, Int8Dumper)
    pooled = connection.backend.pooled
    settings = {
        "statement_timeout": f"{limits.statement_s * 1000:.0f}ms",
        "lock_timeout": f"{limits.lock_s * 1000:.0f}ms",
        "idle_in_transaction_timeout": f"{IDLE_IN_TRANSACTION_TIMEOUT_S:.0f}s",
        "catalog_first": catalog_first,
        "of_transaction": pooled,
    }
    if pooled:
        # A session's settings and prepared statements would stay on a connection that is shared with others.
        connection.adapters.register_loader("timestamptz", IsoTimestamptzLoader)
        bound = psycopg.ClientCursor(connection).mogrify(statement("settings"), settings)
        connection.first = FirstStatements.of(
            statement("without_jit"), statement("with_time"), statement("read_committed"), bound
        )
    else:
        fetch(connection, statement("settings"), settings)
        connection.first = None
        connection.prepare_threshold = 0


def reconnect_delays_s(random_source: Callable[[], float] = random.random) -> Iterator[float]:
    """Delays between attempts to connect: random, up to a limit that doubles (full jitter), so that many processes
    do not all come back at once."""
    ceiling = RECONNECT_BASE_S
    while True:
        yield ceiling * random_source()
        ceiling = min(ceiling * 2, RECONNECT_MAX_S)


def end_backend_of(
    connection: psycopg.Connection[Any], worker_id: str, *, within_s: float = BACKEND_GONE_TIMEOUT_S
) -> bool:
    """End the server process that a worker has registered, unless it is this connection's own, and see it gone.

    Sends several statements, for at most `within_s`. False: it did not go in that time, so it may still commit.
    """
    gives_up_at = time.monotonic() + within_s
    while fetch(connection, statement("terminate_backend"), {"worker_id": worker_id}):
        if time.monotonic() > gives_up_at:
            return False
        time.sleep(BACKEND_GONE_POLL_S)
    return True
