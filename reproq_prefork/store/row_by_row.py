"""Reads a reply value by value, after reading it at once has failed.

The driver reads all rows of a reply or none. One value that it cannot read (text that is not UTF-8) would lose the
other runs of a claim that is already committed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg.pq import Format

_UNKNOWN_TYPE = 0  # psycopg's loader for unknown types: text


class RowByRow(list[tuple[Any, ...]]):
    """Rows, with None for values that could not be read. `why`: the reason, by the index of the row."""

    def __init__(self, rows: Sequence[tuple[Any, ...]], why: Mapping[int, str]) -> None:
        super().__init__(rows)
        self.why = why


def all_rows(cursor: psycopg.Cursor[tuple[Any, ...]]) -> Sequence[tuple[Any, ...]]:
    """`cursor.fetchall()`, or a RowByRow if a value cannot be read."""
    try:
        return cursor.fetchall()
    except Exception:  # any error of a loader: the reply is here, and says what the server has done
        return _row_by_row(cursor)


def _row_by_row(cursor: psycopg.Cursor[tuple[Any, ...]]) -> RowByRow:
    reply = cursor.pgresult
    assert reply is not None
    columns = range(reply.nfields)
    loaders = [_loader(cursor, reply.ftype(column)) for column in columns]
    rows: list[tuple[Any, ...]] = []
    why: dict[int, str] = {}
    for number in range(reply.ntuples):
        values: list[Any] = []
        for column, loader in zip(columns, loaders, strict=True):
            data = reply.get_value(number, column)
            try:
                values.append(None if data is None else loader.load(data))
            except Exception as error:
                values.append(None)
                name = (reply.fname(column) or b"").decode(errors="replace")
                why.setdefault(number, f"its {name} cannot be read: {error}")
        rows.append(tuple(values))
    return RowByRow(rows, why)


def _loader(cursor: psycopg.Cursor[Any], oid: int) -> Any:
    adapters = cursor.connection.adapters
    kind = adapters.get_loader(oid, Format.TEXT) or adapters.get_loader(_UNKNOWN_TYPE, Format.TEXT)
    assert kind is not None
    return kind(oid, cursor.connection)
