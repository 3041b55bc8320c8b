"""Where a storm takes place: a server, hosts each behind a link of its own, and producers."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg

from reproq_prefork.demo.postgres import EmbeddedPostgres
from tests.chaos import server_log
from tests.chaos.hosts import EXIT_TIMEOUT_S, HOSTS, Host, environ_of
from tests.chaos.log_pipe import LogPipe
from tests.support.checkout import CHECKOUT
from tests.support.postgres.databases import apply_migrations
from tests.support.postgres.proxy import Proxy
from tests.support.supervisor.supervisor import Connection, is_running

PRODUCERS = 3
MARK = "REPROQ_TEST_STORM"  # the environment variable by which all that a storm has started is found
GO_ON_S = 5.0  # how long more is enqueued once everything is healed
SERVER_SETTINGS = {
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    **server_log.SETTINGS,
}


@dataclass
class Arena:
    directory: Path
    mark: str
    server: EmbeddedPostgres
    hosts: Mapping[str, Host]
    producers_proxy: Proxy

    @property
    def diary(self) -> Path:
        return self.directory / "diary"

    def logs(self, name: str) -> list[Path]:
        """Of the producers, such as `told-0`."""
        return sorted(self.directory.glob(f"{name}-*"))

    def connect(self) -> Connection:
        return psycopg.connect(self.server.url, autocommit=True)

    @contextlib.contextmanager
    def producing(self, seed: int) -> Iterator[None]:
        """Producers enqueue for as long as this lasts, and a while longer; then what is to be cancelled is."""
        producers = [self._start("producer", self.directory, place, seed) for place in range(PRODUCERS)]
        canceller = self._start("canceller", self.directory / "cancels-by-operator", seed)
        try:
            yield
            time.sleep(GO_ON_S)
        finally:
            for group in (producers, [canceller]):
                for process in group:
                    process.terminate()
                for process in group:
                    process.wait(EXIT_TIMEOUT_S)

    def _start(self, program: str, *arguments: object) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"tests.chaos.{program}", self.producers_proxy.url, self.server.url]
        return subprocess.Popen(
            [*command, *map(str, arguments)], cwd=CHECKOUT, env={**os.environ, MARK: self.mark}
        )

    def strays(self) -> list[psutil.Process]:
        """Processes that the storm has started, and that are still there."""
        mark = f"{MARK}={self.mark}"
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(OSError):
                environ = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
                if mark.encode() in environ and is_running(process):
                    found.append(process)
        return found


@contextlib.contextmanager
def arena(
    directory: Path,
    *,
    names: Collection[str] = HOSTS.keys(),
    package: Path = CHECKOUT,
    environ: Mapping[str, Mapping[str, str]] | None = None,
) -> Iterator[Arena]:
    """Everything but the hosts is started. `package`: where `reproq_prefork` is imported from by the hosts.

    `names`: of the hosts that there are. `environ`: more environment variables, by host.
    """
    mark = os.urandom(6).hex()
    with (
        EmbeddedPostgres(settings=SERVER_SETTINGS) as server,
        Proxy(server.url) as producers_proxy,
        contextlib.ExitStack() as links,
    ):
        apply_migrations(server.url)
        with psycopg.connect(server.url, autocommit=True) as connection:
            server_log.install(connection)
        hosts = {
            name: Host(
                name=name,
                proxy=links.enter_context(Proxy(server.url)),
                environ={
                    MARK: mark,
                    **environ_of(name, directory, package, CHECKOUT),
                    **(environ or {}).get(name, {}),
                },
                directory=directory,
                log=links.enter_context(LogPipe(directory / f"host-{name}.pipe")),
            )
            for name in names
        }
        made = Arena(directory, mark, server, hosts, producers_proxy)
        try:
            yield made
        finally:
            for stray in made.strays():
                with contextlib.suppress(psutil.NoSuchProcess):
                    stray.kill()
