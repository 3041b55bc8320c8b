"""The end of a stream of any length, in bounded memory."""

from __future__ import annotations


class Tail:
    """Keeps the last `limit` bytes of its input, and counts all bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = bytearray()
        self.total = 0

    def feed(self, chunk: bytes) -> None:
        self.total += len(chunk)
        self._kept += chunk
        # Cut only at twice the limit: then each byte is moved once, not once per chunk.
        if len(self._kept) > 2 * self._limit:
            del self._kept[: -self._limit]

    def bytes(self) -> bytes:
        return bytes(self._kept[-self._limit :])

    @property
    def is_whole(self) -> bool:
        return self.total <= self._limit
