"""Rows 5 and 13 of the fault list: the moment after a fork, which strace holds still.

Each system call `prctl` waits a second before it is made, so a new process stands between its fork and what ties
it to its parent, with all signals blocked and no handler set.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.supervisor.supervisor import Connection, Supervisor, add_run, is_running, wait_for_status
from tests.support.waiting import wait_until

DELAY_US = 1_000_000


@pytest.fixture
def slow_births() -> tuple[str, ...]:
    """What to put before a command for that."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    return (
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=prctl",
        "-e",
        f"inject=prctl:delay_enter={DELAY_US}",
    )


def _newborn(master: psutil.Process) -> psutil.Process | None:
    """A child that has done nothing yet, not even taken a title."""
    title = master.cmdline()
    with contextlib.suppress(psutil.NoSuchProcess):
        return next((child for child in master.children() if child.cmdline() == title), None)
    return None


@contextlib.contextmanager
def _started(
    url: str, directory: Path, within: tuple[str, ...]
) -> Iterator[tuple[Supervisor, psutil.Process]]:
    """A supervisor at its start, and its master."""
    with Supervisor(url, directory, workers=2, within=within).starting() as supervisor:
        master = wait_until(lambda: _master_of(supervisor), 10, "the master")
        assert master is not None
        yield supervisor, master


def _master_of(supervisor: Supervisor) -> psutil.Process | None:
    """Not one of the processes that strace itself forks at its start, to see what it can do."""
    with contextlib.suppress(psutil.NoSuchProcess):
        own = psutil.Process(supervisor.pid)
        return next((child for child in own.children() if child.cmdline() not in ([], own.cmdline())), None)
    return None


def test_05_a_child_whose_master_dies_before_the_child_watches_it_exits_too(
    database_url: str, connection: Connection, tmp_path: Path, slow_births: tuple[str, ...]
) -> None:
    with _started(database_url, tmp_path, slow_births) as (supervisor, master):
        newborn = wait_until(lambda: _newborn(master), 20, "a child that was just forked")
        assert newborn is not None
        family = supervisor.family()
        master.kill()
        wait_until(lambda: not is_running(newborn), 10, "the child to end")
        wait_until(lambda: not any(map(is_running, family)), 10, "all of them to be gone")
    with Supervisor(database_url, tmp_path, workers=1):
        wait_for_status(connection, add_run(connection, {}), "SUCCESSFUL")


def test_13_a_signal_between_the_fork_and_the_handler_is_not_lost(
    database_url: str, tmp_path: Path, slow_births: tuple[str, ...]
) -> None:
    with _started(database_url, tmp_path, slow_births) as (supervisor, master):
        newborn = wait_until(lambda: _newborn(master), 20, "a child that was just forked")
        assert newborn is not None
        os.kill(newborn.pid, signal.SIGTERM)
        wait_until(lambda: not is_running(newborn), 30, "the child to end as it was told")
        assert "killed by signal 15" not in supervisor.log()
