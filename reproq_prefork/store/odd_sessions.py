"""Reads times on a connection that is not ours, whatever its DateStyle is.

psycopg reads a timestamptz as text only in ISO. The binary form does not depend on the session, and the session
is not ours to change. Binary is not used elsewhere: loaders that a caller has registered are mostly for text.
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
_FLOAT4_DIGITS = range(6, 10)  # every real keeps six digits, and nine distinguish any two


def writes_iso(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    """Whether times come as text that psycopg can read."""
    return (connection.pgconn.parameter_status(b"DateStyle") or b"ISO").startswith(b"ISO")


def fetch_binary(
    connection: psycopg.Connection[Any], statement: str, parameters: Mapping[str, Any]
) -> Sequence[Any]:
    """All rows as named tuples, with the values that ISO text would have given."""
    with psycopg.Cursor(connection, row_factory=namedtuple_row) as cursor:
        cursor.adapters.register_loader("float4", ShortestFloat4Loader)
        cursor.execute(statement, parameters, binary=True)
        return cursor.fetchall() if cursor.description else ()


async def fetch_binary_async(
    connection: psycopg.AsyncConnection[Any], statement: str, parameters: Mapping[str, Any]
) -> Sequence[Any]:
    """See fetch_binary()."""
    async with psycopg.AsyncCursor(connection, row_factory=namedtuple_row) as cursor:
        cursor.adapters.register_loader("float4", ShortestFloat4Loader)
        await cursor.execute(statement, parameters, binary=True)
        return await cursor.fetchall() if cursor.description else ()


class ShortestFloat4Loader(Loader):
    """Returns 0.1 for the real nearest to 0.1, as the server writes it; not 0.10000000149011612."""

    format = Format.BINARY

    def load(self, data: Buffer) -> float:
        (value,) = _unpack_float4(data)
        for digits in _FLOAT4_DIGITS:
            short = float(f"{value:.{digits}g}")
            if _pack_float4(short) == bytes(data):
                return short
        return float(value)
