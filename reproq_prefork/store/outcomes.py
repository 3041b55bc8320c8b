"""What the errors of the driver mean for a statement: was it written, and is the session of any use?"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from reproq_prefork.errors import ExitStatus, ReproqError

ENDS_SESSION = ("FATAL", "PANIC")
RAISE_OF_A_TRIGGER = "exec_stmt_raise"  # the server's own function, as it reports it with an error
# Of Python's own errors those that psycopg lets through where it writes or reads a value: a lone surrogate, a
# number that is too large for its type, a time in a DateStyle other than ISO.
OF_PYTHON = (ValueError, ArithmeticError, NotImplementedError, struct.error)


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
    """Classify by SQLSTATE (PostgreSQL's Appendix A). Without one nobody knows what the server has done, except
    where nothing was sent."""
    state = error.sqlstate
    if isinstance(error, NotSent):
        return ValueRefused(sentence_of(error))
    if state is None and isinstance(error, psycopg.DataError | psycopg.NotSupportedError):
        return ReplyUnreadable(f"the server's reply cannot be read: {sentence_of(error)}")
    if state is None or _session_is_of_no_use(state, error.diag):
        return ConnectionLost(sentence_of(error))
    # 22 data, 23 integrity, 54 limits, XX000 a size no allocation can have: the value is at fault.
    if state[:2] in ("22", "23", "54") or state == "XX000":
        return ValueRefused(sentence_of(error))
    if state[:2] in ("53", "58"):
        return ServerShort(sentence_of(error))
    refused = (StatementTimedOut if state == "57014" else StatementRefused)(sentence_of(error))
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


def sentence_of(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "; ".join(lines[:3]) if lines else type(error).__name__
