"""What an error of the driver means: the connection, the statement or a value."""

from __future__ import annotations

import struct

import psycopg
import pytest

from reproq_prefork.errors import ReproqError
from reproq_prefork.model.new_run import InvalidRun
from reproq_prefork.store.outcomes import (
    ConnectionLost,
    ReplyUnreadable,
    ServerShort,
    StatementRefused,
    StatementTimedOut,
    ValueRefused,
    translate,
    translated_errors,
)


@pytest.mark.parametrize(
    ("sqlstate", "kind"),
    [
        *((state, ConnectionLost) for state in ("08000", "08003", "08006", "08P01")),
        # The server goes, comes, or ends the session.
        *((state, ConnectionLost) for state in ("57P01", "57P02", "57P03", "57P04", "57P05")),
        # It only reads; the transaction or the session is not what it should be.
        *((state, ConnectionLost) for state in ("25006", "25001", "25P02", "25P03", "25P04")),
        *((state, ConnectionLost) for state in ("26000", "42P05")),
        ("57014", StatementTimedOut),
        *((state, StatementRefused) for state in ("40001", "40P01", "55P03", "42501", "0A000")),
        *((state, ServerShort) for state in ("53100", "53300", "58030")),
        *((state, ValueRefused) for state in ("22003", "22P05", "23505", "54000")),
    ],
)
def test_the_sqlstate_says_what_is_at_fault(sqlstate: str, kind: type[ReproqError]) -> None:
    assert type(translate(psycopg.errors.lookup(sqlstate)("said"))) is kind


@pytest.mark.parametrize(
    "error",
    [
        NotImplementedError("can't parse timestamptz with DateStyle 'SQL, DMY'"),
        UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        OverflowError("date value out of range"),
        struct.error("'q' format requires -9223372036854775808 <= number"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_of_python_that_come_out_of_psycopg_are_translated(error: Exception) -> None:
    """The server has sent a reply, so the statement may be committed."""
    with pytest.raises(ReplyUnreadable) as unreadable, translated_errors():
        raise error
    assert unreadable.value.__cause__ is error


def test_reproq_errors_and_programming_errors_pass_unchanged() -> None:
    for error in (InvalidRun("no"), ConnectionLost("gone"), KeyError("a mistake"), TypeError("a mistake")):
        with pytest.raises(type(error)) as raised, translated_errors():
            raise error
        assert raised.value is error
