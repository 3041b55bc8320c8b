"""Who is in the storm: us and peers, each started, fed and asked in its own way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg

from benchmarks.peers.lifecycle import InstalledPeer
from benchmarks.subject import tasks
from benchmarks.subject.installation import CHECKOUT, FORK
from reproq_prefork import __version__

BODIES_FILE = "BENCH_BODIES"
STATES: Mapping[str, str] = {
    "procrastinate": "select status::text, count(*) from procrastinate_jobs where task_name = 'body' group by 1",
    "django_ox": "select status, count(*) from django_ox_oxtask group by 1",
    "django_tasks_db": "select status, count(*) from django_tasks_database_dbtaskresult group by 1",
}
OURS = "select status, count(*) from task_runs group by 1"


@dataclass
class Contestant:
    """`processes` masters, or workers where there are no masters, each in a session of its own."""

    name: str
    version: str
    configuration: str
    processes: int
    directory: Path
    feed: Callable[[int, float, int], None]  # so many tasks, so many seconds between them, the first number
    states: Callable[[], Mapping[str, int]]
    command: tuple[str, ...]
    cwd: Path
    environ: Mapping[str, str]
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def bodies(self) -> Path:
        return Path(self.environ[BODIES_FILE])

    def start(self) -> None:
        with (self.directory / "log").open("ab") as log:
            self.running.append(
                subprocess.Popen(
                    self.command,
                    cwd=self.cwd,
                    env=self.environ,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )

    def workers(self) -> list[int]:
        """The processes that run tasks; where a master has none of its own, it is one."""
        found = []
        for master in self.running:
            found += [child.pid for child in children_of(master) if _is_worker(child)] or [master.pid]
        return found

    def end(self) -> None:
        for process in self.running:
            process.terminate()
        for process in self.running:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            kill_group(process)
        self.running.clear()


def kill_group(master: subprocess.Popen[bytes]) -> None:
    """What a master that has ended left running, as systemd does (`KillMode=control-group`)."""
    with suppress(ProcessLookupError):
        os.killpg(master.pid, signal.SIGKILL)


def children_of(master: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Those that live; none, where the master does not."""
    try:
        return [child for child in psutil.Process(master.pid).children() if _is_alive(child)]
    except psutil.NoSuchProcess:
        return []


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _is_worker(process: psutil.Process) -> bool:
    try:
        title = " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False
    return "steward" not in title and "template" not in title


def ours(database_url: str, directory: Path) -> Contestant:
    directory.mkdir()

    def feed(count: int, pause_s: float, first: int) -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            for number in range(first, first + count):
                tasks.body.enqueue(connection, number)
                time.sleep(pause_s)

    return Contestant(
        name="reproq-prefork",
        version=__version__,
        configuration="1 master, 4 workers, fork executor, all defaults",
        processes=1,
        directory=directory,
        feed=feed,
        states=lambda: _counted(database_url, OURS),
        command=(sys.executable, "-m", "reproq_prefork", *FORK.arguments, "--workers", "4"),
        cwd=directory,
        environ={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(CHECKOUT),
            "DATABASE_URL": database_url,
            BODIES_FILE: str(directory / "bodies"),
        },
    )


def peer(
    installed: InstalledPeer, directory: Path, configuration: str, environ: Mapping[str, str] | None = None
) -> Contestant:
    """`environ`: what its program reads of its configuration, beyond that of the measurements."""
    directory.mkdir()
    module = installed.peer.module
    program = installed.environment.program
    variables = {**installed.environ, **(environ or {}), BODIES_FILE: str(directory / "bodies")}

    def do(verb: str, *words: object) -> str:
        return subprocess.run(
            [*program, verb, *map(str, words)],
            cwd=installed.cwd,
            env=variables,
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    def feed(count: int, pause_s: float, first: int) -> None:
        do("feed", count, pause_s, first)

    def states() -> Mapping[str, int]:
        if module in STATES:
            return _counted(installed.url, STATES[module])
        found: Mapping[str, int] = json.loads(do("states"))
        return found

    return Contestant(
        name=installed.peer.name,
        version=installed.environment.version,
        configuration=configuration,
        processes=installed.peer.processes,
        directory=directory,
        feed=feed,
        states=states,
        command=(*program, "work"),
        cwd=installed.cwd,
        environ=variables,
    )


def _counted(url: str, query: str) -> Mapping[str, int]:
    with psycopg.connect(url, autocommit=True) as connection:
        return dict(connection.execute(query.encode()).fetchall())
