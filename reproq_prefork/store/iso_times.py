"""Times from a session that writes them as ISO, whatever it says of its DateStyle.

psycopg looks at the DateStyle that the server has reported last. Behind a transaction pooler that is the one
after the transaction, in which our settings do not hold any more.
"""

from __future__ import annotations

from datetime import datetime

import psycopg
from psycopg.adapt import Buffer, Loader


class IsoTimestamptzLoader(Loader):
    """`2026-11-24 21:31:16.123+00` with its own offset. Raises DataError for what no datetime can be."""

    def load(self, data: Buffer) -> datetime:
        text = bytes(data).decode()
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            raise psycopg.DataError(f"no datetime can be {text!r}") from None
