"""One connection to PostgreSQL that cannot hang, and whose errors say what the caller may do next.

A server that stops answering (a stopped process, a dead host behind a live proxy) keeps a client waiting
for ever; `statement_timeout` does not help, since the server enforces it. So every statement has a deadline
in the client too. After it, or after any broken connection, the outcome of the statement is *unknown*.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg
from psycopg import conninfo
from psycopg.rows import RowFactory, namedtuple_row, tuple_row
from psycopg.types.numeric import Int8Dumper

from reproq_prefork.errors import DatabaseUnavailable, ExitStatus, ReproqError
from reproq_prefork.store.row_by_row import all_rows
from reproq_prefork.store.statements import numbered, statement

T = TypeVar("T")

CONNECT_TIMEOUT_S = 5
STATEMENT_TIMEOUT_S = 5.0
LOCK_TIMEOUT_S = 2.0
IDLE_IN_TRANSACTION_TIMEOUT_S = 60.0
CLIENT_DEADLINE_S = 8.0  # above statement_timeout, so that the server's own answer comes first
MIGRATION_TIMEOUT_S = 86_400.0
RECONNECT_BASE_S = 0.1
BACKEND_GONE_TIMEOUT_S = 2.0
BACKEND_GONE_POLL_S = 0.002
RECONNECT_MAX_S = 5.0

# What the user's own DATABASE_URL does not set. tcp_user_timeout is in milliseconds.
CONNECTION_DEFAULTS: Mapping[str, str] = {
    "connect_timeout": str(CONNECT_TIMEOUT_S),
    "keepalives": "1",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
    "client_encoding": "UTF8",
}


class ConnectionLost(ReproqError):
    """The connection broke or a statement met its deadline: whether it was committed is unknown."""


class ReplyUnreadable(ConnectionLost):
    """The reply has come, and cannot be read: the connection is well, and what was sent may be committed."""


# Classes of SQLSTATE that say nothing about a row: features, read-only, rights, deadlocks, names, memory and disk,
# locks, shutdown, I/O, internal errors. Others come from a trigger or a function of the database's owner.
_ABOUT_NO_ROW = frozenset({"0A", "25", "28", "3D", "3F", "40", "42", "53", "55", "57", "58", "XX"})
_ABOUT_LOCKS = frozenset({"40", "55"})


class StatementRefused(ReproqError):
    """The server rolled the statement back and may take it later: a lock, a deadlock, a full disk, no right."""

    exit_status = ExitStatus.DATABASE_UNAVAILABLE
    sqlstate: str = ""

    @property
    def may_be_about_a_row(self) -> bool:
        return self.sqlstate[:2] not in _ABOUT_NO_ROW

    @property
    def is_about_locks(self) -> bool:
        return self.sqlstate[:2] in _ABOUT_LOCKS


class StatementTimedOut(StatementRefused):
    """It took longer than a statement may."""


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
    """A psycopg connection that gives up a statement after `deadline_s`, and knows its `backend`.

    `settings`: behind a pooler, the statement that goes before each other one, in one transaction with it.
    """

    deadline_s: float = CLIENT_DEADLINE_S
    backend: Backend
    settings: str | None = None

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **kwargs: Any) -> T:
        return super().wait(_with_deadline(gen, self.deadline_s), *args, **kwargs)


def _with_deadline(gen: Generator[Any, Any, T], seconds: float) -> Generator[Any, Any, T]:
    """Pass a psycopg generator through; raise in its place once it has waited for `seconds`.

    The waiting loop resumes the generator with nothing ready each time its interval has passed. psycopg makes the
    message before it waits for the first time, so what goes wrong with a value until then is `NotSent`.
    """
    gives_up_at = time.monotonic() + seconds
    try:
        try:
            awaited = next(gen)
        except (psycopg.DataError, psycopg.ProgrammingError, ValueError, ArithmeticError) as error:
            raise NotSent(str(error)) from error
        while True:
            ready = yield awaited
            if not ready and time.monotonic() > gives_up_at:
                raise psycopg.OperationalError(f"no answer from the server within {seconds:g} s")
            awaited = gen.send(ready)
    except StopIteration as finished:
        return finished.value  # type: ignore[no-any-return]


def connect(
    database_url: str, *, application_name: str, limits: TimeLimits = ORDINARY_LIMITS
) -> DeadlineConnection:
    """Open an autocommit connection with every time limit set. Raises `DatabaseUnavailable`."""
    try:
        given = conninfo.conninfo_to_dict(database_url)
    except psycopg.ProgrammingError:
        # libpq's own message quotes the text, which may hold a password.
        raise DatabaseUnavailable("named by DATABASE_URL", "the URL cannot be read") from None
    address = _address(given)
    parameters: dict[str, Any] = {**CONNECTION_DEFAULTS, "application_name": application_name, **given}
    try:
        connection = DeadlineConnection.connect(
            **parameters, autocommit=True, row_factory=namedtuple_row, prepare_threshold=None
        )
    except psycopg.Error as error:
        raise DatabaseUnavailable(address, _sentence(error)) from None
    try:
        with translated_errors():
            _set_up(connection, limits)
    except ReproqError as error:
        connection.close()
        raise DatabaseUnavailable(address, str(error)) from None
    return connection


def _address(parameters: Mapping[str, Any]) -> str:
    """`dbname at host:port`, of what the URL says; never a user's name or password."""
    host = parameters.get("host") or "the default host"
    port = f":{parameters['port']}" if parameters.get("port") else ""
    return f"{parameters.get('dbname') or 'of the default name'} at {host}{port}"


def _set_up(connection: DeadlineConnection, limits: TimeLimits) -> None:
    connection.deadline_s = limits.client_s
    # One integer type for all integers: psycopg picks the smallest that fits the value, and each
    # combination of types would be prepared (and planned) as another statement.
    connection.adapters.register_dumper(int, Int8Dumper)
    connection.backend = _backend_of(connection)
    pooled = connection.backend.pooled
    settings = {
        "statement_timeout": f"{limits.statement_s:.0f}s",
        "lock_timeout": f"{limits.lock_s * 1000:.0f}ms",
        "idle_in_transaction_timeout": f"{IDLE_IN_TRANSACTION_TIMEOUT_S:.0f}s",
        "of_transaction": pooled,
    }
    if pooled:
        # A session's settings and prepared statements would land on a connection shared with others.
        connection.settings = psycopg.ClientCursor(connection).mogrify(statement("settings"), settings)
    else:
        connection.prepare_threshold = 0
        connection.execute(statement("settings"), settings)


def _backend_of(connection: psycopg.Connection[Any]) -> Backend:
    """Ask which server process answers, and whether it is ours alone."""
    row = connection.execute(statement("backend_pid")).fetchone()
    assert row is not None
    return Backend(pid=row.pid, pooled=row.pid != connection.info.backend_pid)


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turn psycopg's errors into the three kinds that a caller acts on."""
    try:
        yield
    except ReproqError:
        raise
    except psycopg.Error as error:
        raise translate(error) from error
    except (
        ValueError,
        ArithmeticError,
        NotImplementedError,
    ) as error:  # of a loader that cannot read a value
        raise ReplyUnreadable(f"the server's reply cannot be read: {_sentence(error)}") from error


def translate(error: psycopg.Error) -> ReproqError:
    """Classify by SQLSTATE (PostgreSQL's Appendix A). Without one nobody knows what the server has done, except
    where nothing was sent."""
    state = error.sqlstate
    if isinstance(error, NotSent):
        return ValueRefused(_sentence(error))
    if state is None and isinstance(error, psycopg.DataError | psycopg.NotSupportedError):
        return ReplyUnreadable(f"the server's reply cannot be read: {_sentence(error)}")
    if state is None or state[:2] == "08" or state in ("57P01", "57P02", "57P03", "57P05"):
        return ConnectionLost(_sentence(error))
    # 22 data, 23 integrity, 54 limits, XX000 a size no allocation can have: the value is at fault.
    if state[:2] in ("22", "23", "54") or state == "XX000":
        return ValueRefused(_sentence(error))
    refused = (StatementTimedOut if state == "57014" else StatementRefused)(_sentence(error))
    refused.sqlstate = state
    return refused


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
    """Both in one message of the simple protocol: its statements are one transaction, on one server process."""
    text = f"{settings};\n{statement}".encode()
    with translated_errors(), psycopg.ClientCursor(connection, row_factory=row_factory) as cursor:
        cursor.execute(text, parameters)
        cursor.nextset()
        return read(cursor)


def _rows_of(cursor: psycopg.Cursor[Any]) -> Sequence[Any]:
    # Not `description`, which makes an object of each column.
    has_rows = cursor.pgresult is not None and cursor.pgresult.nfields > 0
    return cursor.fetchall() if has_rows else ()


def end_backend_of(connection: psycopg.Connection[Any], worker_id: str) -> bool:
    """End the server process that a worker has registered, unless it is this connection's own, and see it gone.

    Several statements, for at most 2 s. False: it would not go in that time, so what it does may yet be committed.
    """
    gives_up_at = time.monotonic() + BACKEND_GONE_TIMEOUT_S
    while fetch(connection, statement("terminate_backend"), {"worker_id": worker_id}):
        if time.monotonic() > gives_up_at:
            return False
        time.sleep(BACKEND_GONE_POLL_S)
    return True
