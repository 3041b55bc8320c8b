"""The notifications of a connection that listens, in bounded memory.

Any login may send as many as it likes. The server sends all of them before it answers the next statement, and
libpq keeps them in memory until they are taken. So they are taken while the answer is read. The first ones are
kept, and the others are only counted.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import psycopg
from psycopg.pq.abc import PGconn
from psycopg.pq.misc import PGnotify

MAX_KEPT = 1_000
READS_A_CALL = 16  # of about 8 KiB each
# A flood: so many notifications before the answer to a statement, after they have delayed it for so long.
FLOOD_MESSAGES = 10_000
FLOOD_BYTES = 4 * 1024 * 1024
FLOOD_PATIENCE_S = 1.0


class Heard(NamedTuple):
    """What came since the last call: (channel, payload) of the first messages, and the number of all."""

    kept: Sequence[tuple[str, str]]
    messages: int
    payload_bytes: int


class Inbox:
    """The notifications of one connection: from now on psycopg puts them only here."""

    def __init__(self, pgconn: PGconn, *, patience_s: float = FLOOD_PATIENCE_S) -> None:
        """`patience_s`: how long notifications may delay the answer to a statement."""
        self._pgconn = pgconn
        self._patience_s = patience_s
        self._kept: list[PGnotify] = []
        self._messages = self._bytes = 0
        self._messages_before_answer = self._bytes_before_answer = 0
        self._statement_began = 0.0
        self.is_flooded = False
        pgconn.notify_handler = self._put

    def statement_begins(self) -> None:
        self._messages_before_answer = self._bytes_before_answer = 0
        self._statement_began = time.monotonic()

    def check_patience(self) -> None:
        """Called while a statement waits for its answer. Raises psycopg.OperationalError in a flood."""
        if self._messages_before_answer < FLOOD_MESSAGES and self._bytes_before_answer < FLOOD_BYTES:
            return
        if time.monotonic() - self._statement_began > self._patience_s:
            self.is_flooded = True
            raise psycopg.OperationalError("a flood of notifications keeps the answer from arriving")

    def empty_libpq(self) -> None:
        """Take what libpq has read. It may be called while a statement waits for its answer."""
        while (said := self._pgconn.notifies()) is not None:
            self._put(said)

    def read(self) -> None:
        """Take what has arrived, up to a limit. It does not wait. Raises psycopg.Error."""
        for _ in range(READS_A_CALL):
            before = self._messages
            self._pgconn.consume_input()
            self.empty_libpq()
            if self._messages == before:
                break

    def take(self) -> Heard:
        heard = Heard(
            [(_text(said.relname), _text(said.extra)) for said in self._kept], self._messages, self._bytes
        )
        self._kept, self._messages, self._bytes = [], 0, 0
        return heard

    def _put(self, said: PGnotify) -> None:
        self._messages += 1
        self._bytes += len(said.extra)
        self._messages_before_answer += 1
        self._bytes_before_answer += len(said.extra)
        if len(self._kept) < MAX_KEPT:
            self._kept.append(said)


def _text(encoded: bytes) -> str:
    # A text that cannot be decoded is not the name of a queue or of a worker of ours.
    return encoded.decode("utf-8", errors="replace")
