from __future__ import annotations

import asyncio
import os
import socket
import sys
import tempfile
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reproq_prefork.boot.fork_safety import reseed_in_forks, unfit_for_workers
from reproq_prefork.unix import proc
from tests.support.unix.children import status_of


def what_is_said_of(opens: Callable[[], Any]) -> str | None:
    """About a process whose import has opened that; it has no thread, as a test's own process may have."""
    reader, writer = os.pipe()

    def program() -> int:
        before = proc.open_files()
        kept = opens()
        opened = proc.open_files().keys() - before.keys()
        os.write(writer, (unfit_for_workers(opened) or "").encode())
        del kept
        return 0

    try:
        assert status_of(program, keep_fds={writer}) == 0
        os.close(writer)
        return os.read(reader, 4096).decode() or None
    finally:
        os.close(reader)


@pytest.mark.parametrize(
    "opens",
    [
        lambda: None,
        lambda: tempfile.TemporaryFile(),  # noqa: SIM115
        lambda: Path("/dev/urandom").open("rb"),  # noqa: SIM115
        lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM),
    ],
    ids=["nothing", "a file", "a device", "a datagram socket"],
)
def test_descriptors_that_workers_may_share_are_accepted(opens: Callable[[], Any]) -> None:
    assert what_is_said_of(opens) is None


@pytest.mark.parametrize(
    ("opens", "named"),
    [
        (socket.socketpair, "socket:["),
        (os.pipe, "pipe:["),
        (asyncio.new_event_loop, "anon_inode:[eventpoll]"),
        (lambda: os.eventfd(0), "anon_inode:[eventfd]"),
    ],
    ids=["a connection", "a pipe", "an event loop", "an event"],
)
def test_descriptors_that_workers_must_not_share_are_reported(opens: Callable[[], Any], named: str) -> None:
    said = what_is_said_of(opens)
    assert said is not None
    assert said.startswith(f"importing it has opened {named}")
    assert said.endswith("which two workers cannot share")


def test_threads_of_an_import_are_reported() -> None:
    def program() -> int:
        assert unfit_for_workers([]) is None
        threading.Thread(target=threading.Event().wait, name="poll", daemon=True).start()
        assert unfit_for_workers([]) == "importing it has started threads (poll), which a fork does not have"
        return 0

    assert status_of(program) == 0


def test_each_fork_seeds_numpys_generator_again(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    numpy_random = types.ModuleType("numpy.random")
    monkeypatch.setattr(numpy_random, "seed", lambda: seeds.append(os.getpid()), raising=False)

    def program() -> int:
        reseed_in_forks()  # numpy is not there
        monkeypatch.setitem(sys.modules, "numpy.random", numpy_random)
        reseed_in_forks()
        return status_of(lambda: 7 if seeds == [os.getpid()] else 1)

    assert status_of(program) == 7
