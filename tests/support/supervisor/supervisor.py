"""A real master with real workers, run as a user runs it, for tests that signal and kill them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import psycopg

from tests.support.checkout import CHECKOUT
from tests.support.postgres.databases import as_login
from tests.support.supervisor.warm import WarmProgram, can_be_warm
from tests.support.waiting import wait_until

TASK_PROGRAM = f"{sys.executable} -I -S {CHECKOUT / 'tests' / 'programs' / 'task.py'}"
START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 20.0
SHORT_LEASE = {"REPROQ_LEASE": "2s"}  # for tests that wait for its end

Connection = psycopg.Connection[tuple[Any, ...]]


class Supervisor:
    """`reproq-prefork`, set by environment variables. On leaving, nothing of it is left, and that is checked."""

    def __init__(
        self,
        database_url: str,
        directory: Path,
        *,
        workers: int = 2,
        environ: Mapping[str, str] | None = None,
        arguments: tuple[str, ...] = (),
        log_path: Path | None = None,
        within: tuple[str, ...] = (),
        least_privilege: bool = True,
    ) -> None:
        """`within`: what to put before the command, such as the program that enters a namespace.

        It connects as a login that has the rights of a worker and no others, in place of the one in the URL;
        without `least_privilege` as the URL says, such as where its tasks use the database too.
        """
        self._within = within
        self.directory = directory
        self._arguments = arguments
        self._log_path = log_path or directory / f"supervisor-{os.urandom(3).hex()}.log"
        self.environ = {
            "PATH": os.environ["PATH"],
            "DATABASE_URL": as_login(database_url, "worker") if least_privilege else database_url,
            "EXECUTOR_COMMAND": TASK_PROGRAM,
            "REPROQ_WORKERS": str(workers),
            "POLL_INTERVAL": "100ms",
            "REPROQ_LOG_LEVEL": "debug",
            "REPROQ_RETRY_BASE": "50ms",
            "REPROQ_RETRY_MAX": "200ms",
            "REPROQ_ENV_FILE": "",
            **(environ or {}),
        }
        self._process: subprocess.Popen[bytes] | WarmProgram | None = None

    def start(self) -> Self:
        with self._log_path.open("ab") as log:
            if not self._within and can_be_warm(self.environ):
                streams = [Path(os.devnull), self._log_path, self._log_path]
                self._process = WarmProgram(
                    self._arguments, directory=self.directory, environ=self.environ, streams=streams
                )
                return self
            self._process = subprocess.Popen(
                [*self._within, sys.executable, "-m", "reproq_prefork", *self._arguments],
                cwd=self.directory,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    def __enter__(self) -> Self:
        if self._process is None:
            self.start()
        if self._log_path.is_file():
            self.wait_for_log("ready: ")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        family = self.kill_all()
        assert self._process is not None
        self._process.wait()
        wait_until(lambda: not any(map(is_running, family)), STOP_TIMEOUT_S, "all processes to be gone")
        if kind is not None and self._log_path.is_file():
            print(f"--- log of the supervisor ---\n{self.log()}")

    @contextlib.contextmanager
    def starting(self) -> Iterator[Self]:
        """Started and not waited for, since it may never be ready; else as the context manager that it is."""
        self.start()
        with contextlib.ExitStack() as stack:
            stack.push(self.__exit__)
            yield self

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill_all(self) -> list[psutil.Process]:
        """SIGKILL for the master and all that descends from it; gives them."""
        family = self.family()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        return family

    def send(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def wait(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """The exit status of the master, once it has ended."""
        assert self._process is not None
        return self._process.wait(timeout_s)

    def stop(self, signum: int = signal.SIGTERM) -> int:
        self.send(signum)
        return self.wait()

    def log(self) -> str:
        return self._log_path.read_text(encoding="utf-8", errors="replace")

    def wait_for_log(self, text: str, *, times: int = 1, timeout_s: float = START_TIMEOUT_S) -> None:
        def seen() -> bool:
            assert self._process is not None
            if self._process.poll() is not None and self.log().count(text) < times:
                raise AssertionError(f"the master ended with {self._process.returncode}:\n{self.log()}")
            return self.log().count(text) >= times

        wait_until(seen, timeout_s, f"{text!r} in the log")

    def family(self) -> list[psutil.Process]:
        """The master and all that descends from it."""
        try:
            master = psutil.Process(self.pid)
            return [master, *master.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def worker_pids(self) -> list[int]:
        return sorted(self._children_called("reproq-prefork: worker"))

    def booted_worker_pids(self) -> list[int]:
        return [pid for pid in self.worker_pids() if pid not in self._children_called(r".*\[booting\]")]

    def steward_pid(self) -> int:
        return self.steward_pids()[0]

    def steward_pids(self) -> list[int]:
        return self._children_called("reproq-prefork: steward")

    def template_pids(self) -> list[int]:
        return self._children_called("reproq-prefork: template")

    def titles(self) -> list[str]:
        """What `ps` shows of each process of the family."""
        titles = []
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                titles.append(" ".join(process.cmdline()).strip())
        return titles

    def _children_called(self, title: str) -> list[int]:
        pids = []
        for process in self.family()[1:]:
            with contextlib.suppress(psutil.NoSuchProcess):
                if re.match(title, " ".join(process.cmdline())) and process.ppid() == self.pid:
                    pids.append(process.pid)
        return pids


def is_running(process: psutil.Process) -> bool:
    """A zombie does not run: it only waits to be reaped."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


# What no new run has: a row that has one of these is inserted as a restore would.
OF_A_LATER_LIFE = frozenset(
    {
        "status",
        "attempts",
        "claims",
        "leased_by",
        "lease_expires_at",
        "worker_ids",
        "result",
        "errors",
        "started_at",
        "last_attempted_at",
        "finished_at",
        "cancel_requested_at",
        "metadata",
        "last_attempt",
        "finish_due_at",
    }
)


@contextlib.contextmanager
def restoring(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """What is inserted meanwhile may be in any state, as rows of a dump are."""
    connection.execute("set reproq.restore = on")
    try:
        yield
    finally:
        connection.execute("reset reproq.restore")


def add_run(connection: Connection, payload: Mapping[str, Any], **columns: Any) -> int:
    """Enqueue by plain SQL, as any program may; gives the id."""
    if OF_A_LATER_LIFE.isdisjoint(columns):
        return insert_run(connection, payload, **columns)
    with restoring(connection):
        return insert_run(connection, payload, **columns)


def insert_run(connection: Connection, payload: Mapping[str, Any], **columns: Any) -> int:
    """One INSERT and nothing else."""
    row_to_be = {"payload": json.dumps(payload), "spec_hash": "0" * 64, **columns}
    names, values = list(row_to_be), list(row_to_be.values())
    statement = psycopg.sql.SQL("insert into task_runs ({}) values ({}) returning id").format(
        psycopg.sql.SQL(", ").join(map(psycopg.sql.Identifier, names)),
        psycopg.sql.SQL(", ").join(psycopg.sql.Placeholder() * len(names)),
    )
    row = connection.execute(statement, values).fetchone()
    assert row is not None
    return int(row[0])


def run_row(connection: Connection, run_id: int) -> dict[str, Any]:
    cursor = connection.execute("select * from task_runs where id = %s", [run_id])
    row = cursor.fetchone()
    assert row is not None
    assert cursor.description is not None
    return dict(zip((column.name for column in cursor.description), row, strict=True))


def wait_for_start(pages: Path) -> None:
    """Until the diary has a page: its task has started.

    The row is RUNNING before that, as soon as the claim commits; and what has not started, or was claimed by a
    statement whose answer is lost, is handed back.
    """
    wait_until(lambda: list(diary(pages)), 10, "the task to start")


def wait_for_status(
    connection: Connection, run_id: int, *statuses: str, timeout_s: float = 20.0
) -> dict[str, Any]:
    """The row of a run, once it has one of `statuses`."""

    def reached() -> dict[str, Any] | None:
        row = run_row(connection, run_id)
        return row if row["status"] in statuses else None

    row = wait_until(reached, timeout_s, f"run {run_id} to be {' or '.join(statuses)}")
    assert row is not None
    return row


def diary(path: Path) -> Iterator[tuple[str, int, int, int, float]]:
    """What task bodies wrote: (what, run id, claim, pid, seconds of CLOCK_BOOTTIME)."""
    if path.exists():
        for line in path.read_text().splitlines():
            what, run_id, claim, pid, at = line.split()
            yield what, int(run_id), int(claim), int(pid), float(at)
