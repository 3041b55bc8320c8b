"""Where a storm takes place: a server, two hosts each behind a link of its own, and producers."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg

from reproq_prefork.embedded import EmbeddedPostgres
from tests.chaos import pages, server_log
from tests.chaos.kinds import LEASE_S
from tests.chaos.schedule import HOSTS
from tests.databases import apply_migrations
from tests.proxy import Proxy
from tests.supervisor import Connection, Supervisor, is_running
from tests.waiting import wait_until

PROGRAM = Path(__file__).parent / "program.py"
CHECKOUT = Path(__file__).parents[2]
WORKERS = 4  # of each host
PRODUCERS = 3
NUMBERS = 10**8  # each producer has its own range of them
MARK = "REPROQ_STORM"  # the environment variable by which all that a storm has started is found
GO_ON_S = 5.0  # how long more is enqueued once everything is healed
EXIT_TIMEOUT_S = 15.0  # of what a dead master has left, and of a master that was told to stop
SERVER_SETTINGS = {
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
}


def boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass
class Host:
    """A master, which may be started again, and its link to the server."""

    name: str
    proxy: Proxy
    environ: Mapping[str, str]
    directory: Path
    supervisor: Supervisor = field(init=False)
    leftovers: list[str] = field(default_factory=list)

    def start(self) -> None:
        self.supervisor = Supervisor(
            self.proxy.url,
            self.directory,
            workers=WORKERS,
            environ=self.environ,
            log_path=self.directory / f"host-{self.name}.log",
        ).start()

    def family(self) -> list[psutil.Process]:
        return self.supervisor.family()

    def bury(self, family: list[psutil.Process]) -> None:
        """Wait until what a dead master has left is gone."""
        self.supervisor.wait(EXIT_TIMEOUT_S)
        try:
            wait_until(lambda: not any(map(is_running, family)), EXIT_TIMEOUT_S, "all to be gone")
        except AssertionError:
            for process in filter(is_running, family):
                self.leftovers.append(
                    f"process {process.pid} of host {self.name} has outlived its master by {EXIT_TIMEOUT_S:g} s"
                )
                process.kill()

    def stop(self) -> None:
        """As an operator does; what is wrong with that is noted."""
        family = self.family()
        try:
            status = self.supervisor.stop()
        except subprocess.TimeoutExpired:
            self.leftovers.append(f"the master of host {self.name} does not stop")
            return
        finally:
            for process in filter(is_running, family):
                self.leftovers.append(
                    f"process {process.pid} of host {self.name} was left by a master that has stopped"
                )
                process.kill()
        if status != 0:
            self.leftovers.append(f"the master of host {self.name} has stopped with exit status {status}")


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

    @property
    def told(self) -> list[Path]:
        return sorted(self.directory.glob("told-*"))

    def connect(self) -> Connection:
        return psycopg.connect(self.server.url, autocommit=True)

    @contextlib.contextmanager
    def producing(self, seed: int) -> Iterator[None]:
        """Producers enqueue for as long as this lasts, and a while longer."""
        producers = [self._start_producer(place, seed) for place in range(PRODUCERS)]
        try:
            yield
            time.sleep(GO_ON_S)
        finally:
            for producer in producers:
                producer.terminate()
            for producer in producers:
                producer.wait(EXIT_TIMEOUT_S)

    def _start_producer(self, place: int, seed: int) -> subprocess.Popen[bytes]:
        command = [
            *(sys.executable, "-m", "tests.chaos.producer", self.producers_proxy.url, self.server.url),
            *(str(self.directory / f"told-{place}"), str((place + 1) * NUMBERS), str(seed + place)),
        ]
        return subprocess.Popen(command, cwd=CHECKOUT, env={**os.environ, MARK: self.mark})

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
    directory: Path, *, package: Path = CHECKOUT, environ: Mapping[str, Mapping[str, str]] | None = None
) -> Iterator[Arena]:
    """Everything but the hosts is started. `package`: where `reproq_prefork` is imported from by the hosts.

    `environ`: more environment variables, by host.
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
                environ={**_environ(name, directory, package, mark), **(environ or {}).get(name, {})},
                directory=directory,
            )
            for name in HOSTS
        }
        made = Arena(directory, mark, server, hosts, producers_proxy)
        try:
            yield made
        finally:
            for stray in made.strays():
                with contextlib.suppress(psutil.NoSuchProcess):
                    stray.kill()


def _environ(name: str, directory: Path, package: Path, mark: str) -> Mapping[str, str]:
    temporary = directory / f"tmp-{name}"
    temporary.mkdir()
    return {
        MARK: mark,
        pages.DIARY: str(directory / "diary"),
        pages.HOST: name,
        "TMPDIR": str(temporary),
        "PYTHONPATH": f"{package}:{CHECKOUT}",
        "EXECUTOR_COMMAND": f"{sys.executable} -I -S {PROGRAM}",
        "ALLOWED_TASK_MODULES": "tests.chaos.bodies",
        "REPROQ_EXECUTOR": "inline",
        "REPROQ_LEASE": f"{LEASE_S:g}s",
        "REPROQ_LOG_LEVEL": "warning",
    }
