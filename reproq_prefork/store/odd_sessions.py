"""Reading times on a connection that is somebody else's, whatever its DateStyle is.

psycopg reads a timestamptz as text in ISO alone. In binary it does not depend on the session, and the session
is not ours to change. Binary is not used otherwise: the loaders that a caller has registered are mostly those
for text.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg.adapt import Buffer, Loader
from psycopg.pq import Format
from psycopg.rows import namedtuple_row

_unpack_float4 = struct.Struct("!f").unpack
_pack_float4 = struct.Struct("!f").pack
_FLOAT4_DIGITS = range(6, 10)  # six are kept by every real, and nine tell any two apart


def writes_iso(connection: psycopg.Connection[Any]) -> bool:
    """Whether times come as psycopg can read them as text."""
    return (connection.pgconn.parameter_status(b"DateStyle") or b"ISO").startswith(b"ISO")


def fetch_binary(
    connection: psycopg.Connection[Any], statement: str, parameters: Mapping[str, Any]
) -> Sequence[Any]:
    """All rows as named tuples, with the values that text in ISO would have given."""
    with psycopg.Cursor(connection, row_factory=namedtuple_row) as cursor:
        cursor.adapters.register_loader("float4", ShortestFloat4Loader)
        cursor.execute(statement, parameters, binary=True)
        return cursor.fetchall() if cursor.description else ()


class ShortestFloat4Loader(Loader):
    """0.1 where the real is the one nearest to 0.1, as the server writes it; not 0.10000000149011612."""

    format = Format.BINARY

    def load(self, data: Buffer) -> float:
        (value,) = _unpack_float4(data)
        for digits in _FLOAT4_DIGITS:
            short = float(f"{value:.{digits}g}")
            if _pack_float4(short) == bytes(data):
                return short
        return float(value)
