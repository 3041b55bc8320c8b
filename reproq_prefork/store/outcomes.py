"""What the errors of the driver mean: was the statement committed, and can the session still be used?"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from reproq_prefork.errors import ExitStatus, ReproqError

ENDS_SESSION = ("FATAL", "PANIC")
RAISE_OF_A_TRIGGER = "exec_stmt_raise"  # the server's own function, as it reports it with an error
# Python errors that psycopg lets through when it writes or reads a value: a lone surrogate, a number that is too
# large for its type, a time in a DateStyle other than ISO.
OF_PYTHON = (ValueError, ArithmeticError, NotImplementedError, struct.error)


class ConnectionLost(ReproqError):
    """The connection broke, or a statement reached its deadline. It is unknown whether it was committed."""


class ReplyUnreadable(ConnectionLost):
    """The reply has arrived and cannot be read. The connection is good, and the statement may be committed."""


# SQLSTATE classes of deadlocks and locks.
_ABOUT_LOCKS = frozenset({"40", "55"})


class StatementRefused(ReproqError):
    """The server rolled the statement back and may accept it later: a lock, a deadlock, a full disk, a right."""

    exit_status = ExitStatus.DATABASE_UNAVAILABLE
    sqlstate: str = ""

    @property
    def is_about_locks(self) -> bool:
        return self.sqlstate[:2] in _ABOUT_LOCKS


class StatementTimedOut(StatementRefused):
    """The statement took longer than it may."""


class ServerShort(StatementRefused):
    """The server lacks disk space, memory, or another resource of its own."""


class ValueRefused(ReproqError):
    """The server rolled the statement back because of a value in it, or in a row that it read."""


class NotSent(psycopg.DataError):
    """The values cannot be put into a message, such as text with a NUL. Nothing was sent."""


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
        raise ReplyUnreadable(f"the server's reply cannot be read: {sentence_of(error)}") from error


def translate(error: psycopg.Error) -> ReproqError:
    """Classify by SQLSTATE (PostgreSQL's Appendix A). Without one, nobody knows what the server has done, unless
    nothing was sent."""
    state = error.sqlstate
    if isinstance(error, NotSent):
        return ValueRefused(sentence_of(error))
    if state is None and isinstance(error, psycopg.DataError | psycopg.NotSupportedError):
        return ReplyUnreadable(f"the server's reply cannot be read: {sentence_of(error)}")
    if state is None or _session_is_of_no_use(state, error.diag):
        return ConnectionLost(sentence_of(error))
    # 22 data, 23 integrity, 54 limits, XX000 a size that no allocation can have: the value is wrong.
    if state[:2] in ("22", "23", "54") or state == "XX000":
        return ValueRefused(sentence_of(error))
    if state[:2] in ("53", "58"):
        return ServerShort(sentence_of(error))
    refused = (StatementTimedOut if state == "57014" else StatementRefused)(sentence_of(error))
    refused.sqlstate = state
    return refused


def _session_is_of_no_use(state: str, said: psycopg.errors.Diagnostic) -> bool:
    """Whether another statement would fail in this session too, but might succeed in a new session.

    08: the connection. 25: the transaction. A read-only server answers every write with 25006; another server may
    now be the primary behind the same address. 57P: the server shuts down, starts, or ends a session. 26000,
    42P05, and a changed result: the session lacks the prepared statements that we expect, since somebody discarded
    them, or a column has another type now.
    """
    if said.severity_nonlocalized in ENDS_SESSION:
        return True
    if said.source_function == RAISE_OF_A_TRIGGER:
        return False  # whatever SQLSTATE the trigger chose
    is_stale = state == "0A000" and said.source_function == "RevalidateCachedQuery"
    return state[:2] in ("08", "25") or state[:3] == "57P" or state in ("26000", "42P05") or is_stale


def sentence_of(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # libpq asks this in a line of its own, and `DatabaseUnavailable` says what to do.
    lines = [line for line in lines if not line.startswith("Is the server running")]
    return "; ".join(lines[:3]) if lines else type(error).__name__
