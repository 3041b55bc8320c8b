"""Reads times from a session that writes them in ISO, whatever DateStyle it reports.

psycopg uses the DateStyle that the server reported last. Behind a transaction pooler, that is the value after the
transaction, where our settings are no longer valid.
"""

from __future__ import annotations

from datetime import datetime

import psycopg
from psycopg.adapt import Buffer, Loader


class IsoTimestamptzLoader(Loader):
    """Reads `2026-11-24 21:31:16.123+00` with its own offset. Raises DataError if a datetime cannot hold it."""

    def load(self, data: Buffer) -> datetime:
        text = bytes(data).decode()
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            raise psycopg.DataError(f"no datetime can be {text!r}") from None
