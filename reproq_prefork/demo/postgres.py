"""A private PostgreSQL for the demo, the tests and first steps, from the `embedded` extra.

It listens on a loopback TCP port, with a random password, and on no Unix socket: the path of a socket has a length
limit that a long TMPDIR breaks, and a test can put a proxy before a port. The port is below the kernel's ephemeral
range. Inside that range, a client that keeps reconnecting to a stopped server can connect to itself (a
simultaneous open). Then it holds the port that the server needs to start again.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self

from reproq_prefork.demo.postgres_programs import EmbeddedFailed, EmbeddedMissing, PostgresPrograms, log_tail

__all__ = ["EmbeddedFailed", "EmbeddedMissing", "EmbeddedPostgres", "StopMode"]

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0
POLL_INTERVAL_S = 0.005
ADDRESS = "127.0.0.1"
PORTS = range(15_432, 32_768)
PORT_TRIES = 100

StopMode = Literal["smart", "fast", "immediate"]
_SIGNALS: Mapping[StopMode, signal.Signals] = MappingProxyType(
    {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
)


class EmbeddedPostgres:
    """One private server of major `version` 16 or 18, with `settings` as in postgresql.conf.

    As a context manager it runs inside the block and leaves nothing behind. You may call `start` and `stop` in
    turn; `url` stays the same. If you give a `directory`, it keeps the data, and stays. Otherwise the data are
    deleted with their temporary directory when the block or the interpreter ends, and `fsync` is off.

    Ctrl-C in a terminal does not reach the server. If the thread that started it dies without notice (SIGKILL),
    the server shuts down by itself. Only then a temporary directory is left behind.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        version: int = 18,
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._programs = PostgresPrograms(version)
        self._home, self._temporary = directory, directory is None
        self._port = _free_port()
        fixed = {
            "listen_addresses": ADDRESS,
            "port": str(self._port),
            "unix_socket_directories": "",
            "dynamic_shared_memory_type": "mmap",  # a killed server leaves nothing in /dev/shm
        }
        self._settings = {"fsync": "off" if self._temporary else "on", **settings, **fixed}
        self._process: subprocess.Popen[bytes] | None = None
        self._finalizer: weakref.finalize[Any, Any] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The superuser's URL of the database `postgres`, for psycopg and psql."""
        password = (self.home / "password").read_text()
        return f"postgresql://postgres:{password}@{ADDRESS}:{self._port}/postgres"

    @property
    def home(self) -> Path:
        """The directory of the server's `data`, `log` and password, from the first start to `close`."""
        if self._home is None:
            raise RuntimeError("this embedded PostgreSQL has not been started yet, or is closed")
        return self._home

    @property
    def pid(self) -> int | None:
        """The postmaster's process id; None while it does not run."""
        return None if self._process is None or self._process.poll() is not None else self._process.pid

    @property
    def version(self) -> str:
        """The full version, such as 18.1."""
        return self._programs.version

    def start(self) -> None:
        """Start the server, and return when it accepts connections. After a crash it first recovers."""
        if self.pid is not None:
            return
        try:
            self._make_home()
            if not (self.home / "data").exists():
                self._programs.initdb(self.home, durable=not self._temporary)
            self._launch(time.monotonic() + START_TIMEOUT_S)
        except BaseException:
            self.close()
            raise

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop as `pg_ctl stop -m` does (wait for clients, disconnect them, crash). Returns when it is gone."""
        if self._process is None or self.pid is None:
            return
        self._process.send_signal(_SIGNALS[mode])
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            what = f"did not stop ({mode}) within {STOP_TIMEOUT_S:g} s"
            raise EmbeddedFailed(what, log_tail(self.home)) from None

    def close(self) -> None:
        """Stop the server, by force if necessary, and remove temporary files. `start` may follow."""
        try:
            if not self._temporary:
                self.stop("fast")
        finally:
            if self._finalizer is not None:
                self._finalizer()
            if self._temporary:
                self._home = None

    def _make_home(self) -> None:
        if self._home is None:
            self._home = Path(tempfile.mkdtemp(prefix="reproq-postgres-"))
            self._finalize(None)
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        password = self._home / "password"
        if not password.exists():
            password.touch(0o600)
            password.write_text(secrets.token_urlsafe(24))
        self._programs.adopt(self._home)

    def _launch(self, deadline_s: float) -> None:
        options = [f"--{name}={value}" for name, value in self._settings.items()]
        while True:
            self._process = self._programs.spawn("postgres", ["-D", "data", *options], self.home)
            self._finalize(self._process)
            while self.pid is not None and time.monotonic() < deadline_s:
                if self._is_ready():
                    return
                time.sleep(POLL_INTERVAL_S)
            # The server processes of a killed postmaster hold its memory until they notice: try again.
            if time.monotonic() >= deadline_s or "pre-existing shared memory" not in log_tail(self.home):
                raise EmbeddedFailed("did not start", log_tail(self.home))
            time.sleep(POLL_INTERVAL_S)

    def _is_ready(self) -> bool:
        lock_file = self.home / "data" / "postmaster.pid"
        lines = lock_file.read_text().splitlines() if lock_file.exists() else []
        return len(lines) == 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    def _finalize(self, process: subprocess.Popen[bytes] | None) -> None:
        """Make sure that `process` ends and temporary files are removed, even if nobody calls `close`."""
        if self._finalizer is not None:
            self._finalizer.detach()
        rubbish = self._home if self._temporary else None
        self._finalizer = weakref.finalize(self, _end, os.getpid(), process, rubbish)


def _end(owner_pid: int, process: subprocess.Popen[bytes] | None, rubbish: Path | None) -> None:
    if os.getpid() != owner_pid:
        return  # a fork inherits this finalizer, but the server belongs to its parent
    try:
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGQUIT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_TIMEOUT_S)
    finally:
        if process is not None:
            process.kill()  # has no effect on a process that is gone
            process.wait()
        if rubbish is not None:
            shutil.rmtree(rubbish, ignore_errors=True)


def _free_port() -> int:
    """A port on which nothing listens now."""
    for port in random.sample(PORTS, PORT_TRIES):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((ADDRESS, port))
            return port
    raise EmbeddedFailed(f"found no free port from {PORTS.start} to {PORTS.stop}", "")
