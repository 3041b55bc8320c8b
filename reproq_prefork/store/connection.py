"""One connection to PostgreSQL that cannot hang, and whose errors say what the caller may do next.

A server that stops answering (a stopped process, a dead host behind a live proxy) keeps a client waiting
for ever; `statement_timeout` does not help, since the server enforces it. So every statement has a deadline
in the client too. After it, or after any broken connection, the outcome of the statement is *unknown*.
"""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg
from psycopg import conninfo
from psycopg.rows import RowFactory, namedtuple_row, tuple_row
from psycopg.types.numeric import Int8Dumper

from reproq_prefork.errors import DatabaseUnavailable, ExitStatus, ReproqError
from reproq_prefork.store.inbox import Inbox
from reproq_prefork.store.iso_times import IsoTimestamptzLoader
from reproq_prefork.store.odd_sessions import fetch_binary, writes_iso
from reproq_prefork.store.opening import GoesOn, always, longest_open_s, open_connection
from reproq_prefork.store.row_by_row import all_rows
from reproq_prefork.store.server import Server, why_unusable
from reproq_prefork.store.statements import numbered, statement

T = TypeVar("T")

CONNECT_TIMEOUT_S = 5
STATEMENT_TIMEOUT_S = 5.0
LOCK_TIMEOUT_S = 2.0
IDLE_IN_TRANSACTION_TIMEOUT_S = 60.0
CLIENT_DEADLINE_S = 8.0  # above statement_timeout, so that the server's own answer comes first
MIGRATION_TIMEOUT_S = 86_400.0
LATE_READS = 1_000  # of an answer that is arriving when its time is up
RECONNECT_BASE_S = 0.1
BACKEND_GONE_TIMEOUT_S = 2.0
ENDS_SESSION = ("FATAL", "PANIC")
RAISE_OF_A_TRIGGER = "exec_stmt_raise"  # the server's own function, as it reports it with an error
SETTING_STATEMENTS = 2  # in `DeadlineConnection.settings`
UNSEEN_S = 30.0  # for so long a server process that nobody can see may still commit a claim
BACKEND_GONE_POLL_S = 0.002
RECONNECT_MAX_S = 5.0

# Of Python's own errors those that psycopg lets through where it writes or reads a value: a lone surrogate, a
# number that is too large for its type, a time in a DateStyle other than ISO.
OF_PYTHON = (ValueError, ArithmeticError, NotImplementedError, struct.error)

# What the user's own DATABASE_URL does not set, and (OURS) what it may not. tcp_user_timeout is in
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


class ConnectionLost(ReproqError):
    """The connection broke or a statement met its deadline: whether it was committed is unknown."""


class ReplyUnreadable(ConnectionLost):
    """The reply has come, and cannot be read: the connection is well, and what was sent may be committed."""


# Classes of SQLSTATE: deadlocks and locks.
_ABOUT_LOCKS = frozenset({"40", "55"})


class StatementRefused(ReproqError):
    """The server rolled the statement back and may take it later: a lock, a deadlock, a full disk, no right."""

    exit_status = ExitStatus.DATABASE_UNAVAILABLE
    sqlstate: str = ""

    @property
    def is_about_locks(self) -> bool:
        return self.sqlstate[:2] in _ABOUT_LOCKS


class StatementTimedOut(StatementRefused):
    """It took longer than a statement may."""


class ServerShort(StatementRefused):
    """The server lacks room on its disk, memory, or another resource of its own."""


class ValueRefused(ReproqError):
    """The server rolled the statement back because of a value in it, or in a row that it read."""


class NotSent(psycopg.DataError):
    """The values cannot be put into a message, such as text with a NUL: nothing was sent."""


@dataclass(frozen=True, slots=True)
class Backend:
    """The server's process for a connection.

    A transaction pooler hands out a process a transaction; it is recognised by the pid it made up for us
    at the start, which is not the one that answers.
    """

    pid: int
    pooled: bool


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """How long a statement may take, wait for a lock, and be without an answer, before it is given up."""

    statement_s: float = STATEMENT_TIMEOUT_S
    lock_s: float = LOCK_TIMEOUT_S
    client_s: float = CLIENT_DEADLINE_S


ORDINARY_LIMITS = TimeLimits()
# An index over a large table takes as long as it takes, and so does another migration before this one.
MIGRATION_LIMITS = TimeLimits(MIGRATION_TIMEOUT_S, MIGRATION_TIMEOUT_S, MIGRATION_TIMEOUT_S)


class DeadlineConnection(psycopg.Connection[Any]):
    """A psycopg connection that gives up a statement after `deadline_s`, and knows its `server` and `backend`.

    `settings`: behind a pooler, the statements that go before each other one, in one transaction with it.
    `inbox`: of a connection that listens, where its notifications go.
    """

    deadline_s: float = CLIENT_DEADLINE_S
    server: Server
    backend: Backend
    settings: str | None = None
    inbox: Inbox | None = None

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **kwargs: Any) -> T:
        if self.inbox is not None:
            gen = _emptying(gen, self.inbox)
        return super().wait(_with_deadline(gen, self.deadline_s), *args, **kwargs)


def _with_deadline(gen: Generator[Any, Any, T], seconds: float) -> Generator[Any, Any, T]:
    """Pass a psycopg generator through; raise in its place once it has waited for `seconds`.

    The waiting loop resumes the generator with nothing ready each time its interval has passed. What has arrived
    when the time is up still counts, since this process may have been stopped meanwhile. But only a bounded amount
    of it is read: notifications may arrive without end before the answer.

    psycopg makes the message before it waits for the first time, so what goes wrong with a value until then is
    `NotSent`.
    """
    gives_up_at = time.monotonic() + seconds
    late_reads = 0
    try:
        try:
            awaited = next(gen)
        except (psycopg.DataError, psycopg.ProgrammingError, psycopg.NotSupportedError, *OF_PYTHON) as error:
            raise NotSent(str(error)) from error
        while True:
            ready = yield awaited
            if time.monotonic() > gives_up_at:
                late_reads += 1
                if not ready or late_reads > LATE_READS:
                    raise psycopg.OperationalError(f"no answer from the server within {seconds:g} s")
            awaited = gen.send(ready)
    except StopIteration as finished:
        return finished.value  # type: ignore[no-any-return]


def _emptying(gen: Generator[Any, Any, T], inbox: Inbox) -> Generator[Any, Any, T]:
    """Pass a psycopg generator through, and take the notifications that come before the answer as they come."""
    inbox.statement_begins()
    try:
        awaited = next(gen)
        while True:
            ready = yield awaited
            awaited = gen.send(ready)
            inbox.empty_libpq()
            inbox.check_patience()
    except StopIteration as finished:
        return finished.value  # type: ignore[no-any-return]


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
    """Open an autocommit connection, with all set that its statements depend on. Raises `DatabaseUnavailable`.

    It raises that also where the server is not fit for work, such as a standby. `for_writing` False: the caller
    only reads, for which a standby will do. `system`: the identifier that the server must have. `asks_system`:
    any will do, and the caller wants to know it. `makes_schema`: new tables go where the login's own search
    path says. `goes_on`: see `open_connection`.
    """
    given = _given(database_url)
    address = _address(given)
    parameters = {**CONNECTION_DEFAULTS, "application_name": application_name, **given, **OURS}
    try:
        opened = open_connection(parameters, goes_on=goes_on, for_writing=for_writing)
    except psycopg.Error as error:
        raise DatabaseUnavailable(address, _sentence(error)) from None
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
        raise DatabaseUnavailable(_address(given), _sentence(error)) from None


def _given(database_url: str) -> Mapping[str, Any]:
    try:
        return conninfo.conninfo_to_dict(database_url)
    except psycopg.ProgrammingError:
        # libpq's own message quotes the text, which may hold a password.
        raise DatabaseUnavailable("named by DATABASE_URL", "the URL cannot be read") from None


def _address(parameters: Mapping[str, Any]) -> str:
    """`dbname at host:port`, of what the URL says; never a user's name or password."""
    host = parameters.get("host") or "the default host"
    port = f":{parameters['port']}" if parameters.get("port") else ""
    return f"{parameters.get('dbname') or 'of the default name'} at {host}{port}"


def _ask_server(connection: DeadlineConnection, *, asks_system: bool) -> None:
    """Which server answers, and which of its processes; whether that is ours alone."""
    (row,) = fetch(connection, statement("server_facts"), {})
    system = None
    if asks_system:
        with suppress(StatementRefused):  # the function is forbidden, or not there: then any server will do
            system = fetch(connection, statement("server_identity"), {})[0].system
    connection.server = Server.of_row(row, system)
    connection.backend = Backend(pid=row.pid, pooled=row.pid != connection.info.backend_pid)


def _set_up(connection: DeadlineConnection, limits: TimeLimits, *, catalog_first: bool) -> None:
    # One integer type for all integers: psycopg picks the smallest that fits the value, and each
    # combination of types would be prepared (and planned) as another statement.
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
        # A session's settings and prepared statements would land on a connection shared with others.
        connection.adapters.register_loader("timestamptz", IsoTimestamptzLoader)
        bound = psycopg.ClientCursor(connection).mogrify(statement("settings"), settings)
        connection.settings = f"{statement('read_committed')};\n{bound}"
    else:
        connection.prepare_threshold = 0
        connection.execute(statement("settings"), settings)


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turn psycopg's errors into the three kinds that a caller acts on."""
    try:
        yield
    except ReproqError:
        raise
    except psycopg.Error as error:
        raise translate(error) from error
    except OF_PYTHON as error:  # of a loader that cannot read a value
        raise ReplyUnreadable(f"the server's reply cannot be read: {_sentence(error)}") from error


def translate(error: psycopg.Error) -> ReproqError:
    """Classify by SQLSTATE (PostgreSQL's Appendix A). Without one nobody knows what the server has done, except
    where nothing was sent."""
    state = error.sqlstate
    if isinstance(error, NotSent):
        return ValueRefused(_sentence(error))
    if state is None and isinstance(error, psycopg.DataError | psycopg.NotSupportedError):
        return ReplyUnreadable(f"the server's reply cannot be read: {_sentence(error)}")
    if state is None or _session_is_of_no_use(state, error.diag):
        return ConnectionLost(_sentence(error))
    # 22 data, 23 integrity, 54 limits, XX000 a size no allocation can have: the value is at fault.
    if state[:2] in ("22", "23", "54") or state == "XX000":
        return ValueRefused(_sentence(error))
    if state[:2] in ("53", "58"):
        return ServerShort(_sentence(error))
    refused = (StatementTimedOut if state == "57014" else StatementRefused)(_sentence(error))
    refused.sqlstate = state
    return refused


def _session_is_of_no_use(state: str, said: psycopg.errors.Diagnostic) -> bool:
    """Whether another statement of this session would fare no better, and one of a new session might.

    08: the connection. 25: the transaction. A server that only reads answers every write with 25006; behind the
    same address another may be the primary by now. 57P: the server shuts down, starts, or ends a session.
    26000, 42P05, and a changed result: the session lacks the prepared statements that we know of, since
    somebody discarded them, or a column has another type now.
    """
    if said.severity_nonlocalized in ENDS_SESSION:
        return True
    if said.source_function == RAISE_OF_A_TRIGGER:
        return False  # whatever SQLSTATE it was given
    is_stale = state == "0A000" and said.source_function == "RevalidateCachedQuery"
    return state[:2] in ("08", "25") or state[:3] == "57P" or state in ("26000", "42P05") or is_stale


def _sentence(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "; ".join(lines[:3]) if lines else type(error).__name__


def reconnect_delays_s(random_source: Callable[[], float] = random.random) -> Iterator[float]:
    """Delays between attempts to connect: full jitter under a doubling ceiling, so that a fleet does
    not come back in one wave."""
    ceiling = RECONNECT_BASE_S
    while True:
        yield ceiling * random_source()
        ceiling = min(ceiling * 2, RECONNECT_MAX_S)


def fetch(
    connection: psycopg.Connection[Any], statement: str, parameters: Mapping[str, Any]
) -> Sequence[Any]:
    """Run one statement and fetch all its rows, as named tuples; errors are translated. Any connection will do."""
    if isinstance(connection, DeadlineConnection) and connection.settings is not None:
        return _fetch_with_settings(
            connection, connection.settings, statement, parameters, namedtuple_row, _rows_of
        )
    if not isinstance(connection, DeadlineConnection) and not writes_iso(connection):
        with translated_errors():
            return fetch_binary(connection, statement, parameters)
    # A cursor of our own: another's connection may make cursors of other rows, that take other placeholders.
    with translated_errors(), psycopg.Cursor(connection, row_factory=namedtuple_row) as cursor:
        cursor.execute(statement, parameters)
        return _rows_of(cursor)


def fetch_tuples(
    connection: DeadlineConnection, name: str, parameters: Mapping[str, Any]
) -> Sequence[tuple[Any, ...]]:
    """Run the statement `name` as fast as can be, and fetch all its rows, of which there is at least one.

    A RowByRow where a value cannot be read.
    """
    if connection.settings is not None:
        return _fetch_with_settings(
            connection, connection.settings, statement(name), parameters, tuple_row, all_rows
        )
    text, names = numbered(name)
    with translated_errors(), psycopg.RawCursor(connection, row_factory=tuple_row) as cursor:
        return all_rows(cursor.execute(text, [parameters[each] for each in names]))


def _fetch_with_settings(
    connection: DeadlineConnection,
    settings: str,
    statement: str,
    parameters: Mapping[str, Any],
    row_factory: RowFactory[Any],
    read: Callable[[psycopg.Cursor[Any]], Sequence[Any]],
) -> Sequence[Any]:
    """All in one message of the simple protocol: its statements are one transaction, on one server process."""
    text = f"{settings};\n{statement}".encode()
    with translated_errors(), psycopg.ClientCursor(connection, row_factory=row_factory) as cursor:
        cursor.execute(text, parameters)
        for _ in range(SETTING_STATEMENTS):
            cursor.nextset()
        return read(cursor)


def _rows_of(cursor: psycopg.Cursor[Any]) -> Sequence[Any]:
    # Not `description`, which makes an object of each column.
    has_rows = cursor.pgresult is not None and cursor.pgresult.nfields > 0
    return cursor.fetchall() if has_rows else ()


def end_backend_of(
    connection: psycopg.Connection[Any], worker_id: str, *, within_s: float = BACKEND_GONE_TIMEOUT_S
) -> bool:
    """End the server process that a worker has registered, unless it is this connection's own, and see it gone.

    Several statements, for at most `within_s`. False: it would not go in that time, so what it does may yet be
    committed.
    """
    gives_up_at = time.monotonic() + within_s
    while fetch(connection, statement("terminate_backend"), {"worker_id": worker_id}):
        if time.monotonic() > gives_up_at:
            return False
        time.sleep(BACKEND_GONE_POLL_S)
    return True
