"""A pid file that cannot be stale: its master holds a lock on it as long as it lives."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from reproq_prefork.errors import AlreadyRunning, SettingsError


class PidFile:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def acquire(self) -> None:
        """Write the pid of this process. Raises `AlreadyRunning`, and `SettingsError` if the file cannot be
        written.

        The lock is a record lock (fcntl(2)). It belongs to the process, is not inherited by a fork, and ends with
        the process, however it dies. So a process that gets the lock may overwrite what an earlier master left.
        """
        try:
            while self._fd is None:
                self._fd = self._locked()
            os.ftruncate(self._fd, 0)
            os.write(self._fd, f"{os.getpid()}\n".encode())
        except OSError as error:
            self._close()
            raise SettingsError([f"--pid-file: {self._path} cannot be written: {error.strerror}"]) from None

    def _locked(self) -> int | None:
        """Open and lock the file. None: the locked file is not the one at the path any more (its master just
        exited).
        """
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(fd), self._path.stat()):
                return fd
        except FileNotFoundError:
            pass
        except (
            BlockingIOError,
            PermissionError,
        ):  # the errors of a lock that another process holds (fcntl(2))
            pid = os.read(fd, 32).decode("ascii", errors="replace").strip()
            os.close(fd)
            raise AlreadyRunning(int(pid) if pid.isdigit() else 0, str(self._path)) from None
        except OSError:
            os.close(fd)
            raise
        os.close(fd)
        return None

    def release(self) -> None:
        if self._fd is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()
        self._close()

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
