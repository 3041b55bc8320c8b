from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reproq_prefork.unix.systemd import Notifier


class Manager:
    """The end at which systemd listens."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._end.bind("\0" + address[1:] if address.startswith("@") else address)
        self._end.setblocking(False)

    def heard(self) -> list[str]:
        messages = []
        try:
            while True:
                messages.append(self._end.recv(4096).decode())
        except BlockingIOError:
            return messages

    def close(self) -> None:
        self._end.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    is_path = request.param == "path"
    manager = Manager(str(tmp_path / "notify") if is_path else f"@reproq-test-{os.getpid()}")
    yield manager
    manager.close()


def test_a_state_is_sent_unchanged(manager: Manager) -> None:
    notifier = Notifier(manager.address)
    notifier.tell("READY=1")
    notifier.tell("STOPPING=1")
    assert manager.heard() == ["READY=1", "STOPPING=1"]


def test_a_reload_carries_the_time_at_which_it_began(manager: Manager) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    Notifier(manager.address).tell("RELOADING=1")
    (told,) = manager.heard()
    state, _, moment = told.partition("\nMONOTONIC_USEC=")
    assert state == "RELOADING=1"
    assert before <= int(moment) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def test_a_sign_of_life_is_sent_twice_as_often_as_the_watchdog_requires(manager: Manager) -> None:
    notifier = Notifier(manager.address, watchdog_s=10**9)  # longer than any machine is up
    for _ in range(5):
        notifier.show_life()
    assert manager.heard() == ["WATCHDOG=1"]
    eager = Notifier(manager.address, watchdog_s=0)
    for _ in range(3):
        eager.show_life()
    assert manager.heard() == ["WATCHDOG=1"] * 3


def test_without_a_watchdog_there_is_no_sign_of_life(manager: Manager) -> None:
    Notifier(manager.address).show_life()
    assert manager.heard() == []


@pytest.mark.parametrize("address", [None, "", "/nowhere/notify", "@nobody-listens", "/" + "x" * 200])
def test_a_manager_that_does_not_listen_stops_nothing(address: str | None) -> None:
    notifier = Notifier(address, watchdog_s=0)
    notifier.tell("READY=1")
    notifier.tell("RELOADING=1")
    notifier.show_life()


def test_a_manager_that_does_not_read_blocks_nobody(manager: Manager) -> None:
    notifier = Notifier(manager.address)
    for _ in range(2_000):
        notifier.tell("WATCHDOG=1")
    assert manager.heard()


def test_nothing_is_left_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        Notifier("/nowhere/notify").tell("READY=1")
    assert len(os.listdir("/proc/self/fd")) == before
