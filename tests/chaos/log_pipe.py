"""The log of a host: a pipe, as under Docker or systemd, and a thread that reads it into a file, mostly."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

SMALL_BYTES = 4096  # the smallest pipe there is
LOOK_S = 0.2
FILLER = b"." * 99 + b"\n"


class LogPipe:
    """`path` is the pipe, for writers; the file beside it is called `.log`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._over = threading.Event()
        self._reads = threading.Lock()
        os.mkfifo(path)
        # For writing too: so nobody waits for a reader, and the reader never for a writer.
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._thread = threading.Thread(target=self._read, daemon=True)

    @contextlib.contextmanager
    def unread(self) -> Iterator[None]:
        """Nobody reads it meanwhile, and it is full from the first moment."""
        with self._reads:
            size = fcntl.fcntl(self._fd, fcntl.F_GETPIPE_SZ)
            with contextlib.suppress(OSError):  # there is more in it than that
                fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, SMALL_BYTES)
            for filler in (FILLER, b"."):
                with contextlib.suppress(BlockingIOError):
                    while True:
                        os.write(self._fd, filler)
            try:
                yield
            finally:
                fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, size)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        os.close(self._fd)

    def _read(self) -> None:
        with self.path.with_suffix(".log").open("ab", buffering=0) as log:
            while not self._over.is_set():
                if select.select([self._fd], [], [], LOOK_S)[0]:
                    with self._reads, contextlib.suppress(BlockingIOError):
                        log.write(os.read(self._fd, 65_536))
