"""As process 1 of a pid namespace, where one may be made."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from reproq_prefork.unix import proc
from reproq_prefork.unix.signals import MASTERS_OWN
from tests.support.checkout import CHECKOUT

IN_NAMESPACE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
EXIT_TIMEOUT_S = 20.0

PRELUDE = """
import os, select, signal, sys, time
from reproq_prefork.boot import pid1
from reproq_prefork.unix.signals import MASTERS_OWN
from reproq_prefork.unix.signals import SignalInbox

def say(words):
    os.write(1, f"{words}\\n".encode())

def wait_until(condition):
    gives_up_at = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < gives_up_at
        time.sleep(0.005)
"""
RUN = "\nassert os.getpid() == 1\nsys.exit(pid1.run_below_init(program))\n"


@pytest.fixture(scope="module", autouse=True)
def _a_namespace_can_be_made() -> None:
    try:
        able = subprocess.run([*IN_NAMESPACE, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        able = False
    if not able:
        pytest.skip("no pid namespace may be made here")


class Container:
    """`program` below an init that is process 1."""

    def __init__(self, program: str) -> None:
        self._unshare = subprocess.Popen(
            [*IN_NAMESPACE, sys.executable, "-c", PRELUDE + program + RUN],
            stdout=subprocess.PIPE,
            cwd=CHECKOUT,
            bufsize=0,
        )

    def line(self) -> str:
        assert self._unshare.stdout is not None
        return self._unshare.stdout.readline().decode().strip()

    def rest(self) -> str:
        assert self._unshare.stdout is not None
        return self._unshare.stdout.read().decode()

    def send(self, signum: int) -> None:
        (first,) = proc.children_of(self._unshare.pid)
        os.kill(first, signum)

    def exit_status(self) -> int:
        return self._unshare.wait(EXIT_TIMEOUT_S)

    def close(self) -> None:
        self._unshare.kill()
        self._unshare.wait()
        assert self._unshare.stdout is not None
        self._unshare.stdout.close()


@pytest.fixture
def containers() -> Iterator[list[Container]]:
    containers: list[Container] = []
    yield containers
    for container in containers:
        container.close()


def start(containers: list[Container], program: str) -> Container:
    containers.append(Container(program))
    return containers[-1]


def test_pid_1_exits_with_the_status_of_the_program(containers: list[Container]) -> None:
    assert start(containers, "def program(): return 7").exit_status() == 7


def test_the_exit_status_shows_the_signal_that_killed_the_program(containers: list[Container]) -> None:
    program = "def program(): os.kill(os.getpid(), signal.SIGKILL)"
    assert start(containers, program).exit_status() == 128 + signal.SIGKILL


def test_pid_1_passes_every_signal_on_in_order(containers: list[Container]) -> None:
    container = start(
        containers,
        """
def program():
    inbox = SignalInbox(MASTERS_OWN)
    say("ready")
    while True:
        select.select([inbox], [], [])
        for signum in inbox.take():
            say(signal.Signals(signum).name)
            if signum == signal.SIGQUIT:
                return 0
""",
    )
    assert container.line() == "ready"
    for signum in sorted(MASTERS_OWN, key=lambda signum: signum == signal.SIGQUIT):
        container.send(signum)
        assert container.line() == signum.name
    assert container.exit_status() == 0


def test_a_signal_before_the_program_has_handlers_is_not_lost(containers: list[Container]) -> None:
    container = start(
        containers,
        """
def program():
    say("forked")
    wait_until(lambda: signal.SIGTERM in signal.sigpending())
    return 3 if signal.SIGTERM in SignalInbox((signal.SIGTERM,)).take() else 4
""",
    )
    assert container.line() == "forked"
    container.send(signal.SIGTERM)
    assert container.exit_status() == 3


def test_pid_1_reaps_orphans_and_goes_on(containers: list[Container]) -> None:
    container = start(
        containers,
        """
def program():
    reader, writer = os.pipe()
    for _ in range(20):
        child = os.fork()
        if child == 0:
            orphan = os.fork()
            if orphan == 0:
                wait_until(lambda: os.getppid() == 1)
                os._exit(5)
            os.write(writer, orphan.to_bytes(4, "little"))
            os._exit(0)
        os.waitpid(child, 0)
        orphan = int.from_bytes(os.read(reader, 4), "little")
        wait_until(lambda: not os.path.exists(f"/proc/{orphan}"))
    return 0
""",
    )
    assert container.exit_status() == 0


def test_remaining_processes_die_with_the_program(containers: list[Container]) -> None:
    container = start(
        containers,
        """
def program():
    if os.fork() == 0:
        os.setsid()
        say("left")
        while True:
            time.sleep(60)
    return 0
""",
    )
    assert container.exit_status() == 0
    assert container.rest() in ("left\n", ""), "its output ends, so nobody is left who holds it"
