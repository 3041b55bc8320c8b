"""Row 45 of the fault list: a standard error that nobody reads."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.supervisor.supervisor import (
    Connection,
    Supervisor,
    add_run,
    diary,
    run_row,
    wait_for_start,
    wait_for_status,
)
from tests.support.waiting import wait_until


class Fifo:
    """A pipe by name, so that it can be a supervisor's log; full until somebody reads it."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self.reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        self.fill()

    def fill(self) -> None:
        for text in (b"x" * 4096, b"x"):
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(self._writer, text)

    def read(self) -> bytes:
        said = b""
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self.reader, 1 << 20):
                said += chunk
        return said

    def close(self) -> None:
        os.close(self.reader)
        os.close(self._writer)


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Fifo]:
    fifo = Fifo(tmp_path / "fifo")
    yield fifo
    fifo.close()


def workers_are(connection: Connection, number: int) -> set[int]:
    """Their pids, once so many are registered."""
    return wait_until(
        lambda: pids if len(pids := registered(connection)) == number else set(),
        20,
        f"{number} workers",
    )


def registered(connection: Connection) -> set[int]:
    return {pid for (pid,) in connection.execute("select pid from reproq_workers")}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("format", ["console", "json"])
def test_45_an_unread_log_stops_nothing_and_reports_how_many_lines_were_dropped(
    database_url: str, connection: Connection, tmp_path: Path, fifo: Fifo, format: str
) -> None:
    environ = {"REPROQ_LOG_FORMAT": format, "REPROQ_TIMEOUT": "2s"}
    with Supervisor(database_url, tmp_path, log_path=fifo.path, environ=environ) as supervisor:
        # Work, failures and deadlines: each is some lines.
        first = workers_are(connection, 2)
        runs = [
            add_run(connection, {"exit": 1} if number % 2 else {}, max_attempts=2) for number in range(200)
        ]
        late = add_run(connection, {"sleep": 60}, max_attempts=1)
        for number, run_id in enumerate(runs):
            wait_for_status(connection, run_id, "FAILED" if number % 2 else "SUCCESSFUL", timeout_s=40)
        assert wait_for_status(connection, late, "FAILED")["errors"][0]["kind"] == "timeout"

        # A killed worker, a dead steward, a reload.
        victim = sorted(first)[0]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: victim not in (pids := registered(connection)) and len(pids) == 2, 20, "another")
        steward = supervisor.steward_pid()
        os.kill(steward, signal.SIGKILL)
        wait_until(lambda: supervisor.steward_pids() not in ([], [steward]), 20, "another steward")
        second = workers_are(connection, 2)
        supervisor.send(signal.SIGUSR1)
        supervisor.send(signal.SIGHUP)
        wait_until(lambda: len(pids := registered(connection)) == 2 and not pids & second, 30, "new workers")
        wait_for_status(connection, add_run(connection, {}), "SUCCESSFUL")

        # Somebody reads again.
        assert set(fifo.read()) == {ord("x")}
        wait_for_status(connection, add_run(connection, {}), "SUCCESSFUL")
        supervisor.send(signal.SIGUSR1)
        said = b""

        def is_told() -> bool:
            nonlocal said
            said += fifo.read()
            return b"master" in said and b"dropped" in said and said.count(b"worker") > 2

        wait_until(is_told, 10, "the numbers of dropped lines")
        lines = said.splitlines()
        if format == "json":
            events = [json.loads(line) for line in lines]
            assert max(event.get("dropped", 0) for event in events if event["process"] == "master") > 5
        else:
            assert any(b" master: lines of this process were dropped" in line for line in lines)

        # And full again, to the end.
        fifo.fill()
        at_work = add_run(connection, {"wait_for": str(tmp_path / "go"), "diary": str(tmp_path / "diary")})
        wait_for_start(tmp_path / "diary")
        supervisor.send(signal.SIGTERM)
        (tmp_path / "go").touch()
        assert supervisor.wait() == 0
        assert run_row(connection, at_work)["status"] == "SUCCESSFUL"
    assert [what for what, *_ in diary(tmp_path / "diary")] == ["start", "end"]


@pytest.mark.timeout(60)
def test_45_a_wrong_settings_file_is_refused_while_the_log_is_unread(
    database_url: str, connection: Connection, tmp_path: Path, fifo: Fifo
) -> None:
    with Supervisor(database_url, tmp_path, log_path=fifo.path) as supervisor:
        before = workers_are(connection, 2)
        (tmp_path / "reproq.toml").write_text("nonsense = 1\n" * 500)
        supervisor.send(signal.SIGHUP)
        (tmp_path / "sign").touch()
        wait_for_status(connection, add_run(connection, {}), "SUCCESSFUL")
        (tmp_path / "reproq.toml").unlink()
        supervisor.send(signal.SIGHUP)
        wait_until(lambda: len(pids := registered(connection)) == 2 and not pids & before, 30, "new workers")
        assert supervisor.stop() == 0


def stopped_terminal() -> tuple[int, int]:
    ours, theirs = pty.openpty()
    termios.tcflow(theirs, termios.TCOOFF)  # Ctrl-S
    return ours, theirs


def full_pipe() -> tuple[int, int]:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    return reader, writer


def full_socket() -> tuple[int, int]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    for text in (b"x" * 4096, b"x"):
        with contextlib.suppress(BlockingIOError):
            while True:
                theirs.send(text)
    theirs.setblocking(True)
    return ours.detach(), theirs.detach()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", [stopped_terminal, full_pipe, full_socket])
def test_45_no_process_waits_for_the_reader_of_any_kind_of_standard_error(
    database_url: str, connection: Connection, tmp_path: Path, make: Callable[[], tuple[int, int]]
) -> None:
    reader, writer = make()
    flags = fcntl.fcntl(writer, fcntl.F_GETFL)
    supervisor = Supervisor(database_url, tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "reproq_prefork"],
        cwd=tmp_path,
        env=supervisor.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=writer,
        start_new_session=True,
    )
    try:
        for number in range(20):
            run_id = add_run(connection, {"exit": 1} if number % 2 else {}, max_attempts=1)
            wait_for_status(connection, run_id, "FAILED" if number % 2 else "SUCCESSFUL")
        assert fcntl.fcntl(writer, fcntl.F_GETFL) == flags
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(reader)
        os.close(writer)
