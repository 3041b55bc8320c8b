from __future__ import annotations

import os
import resource
import signal
import time
from pathlib import Path

import pytest

from reproq_prefork.errors import AlreadyRunning, ExitStatus, SettingsError
from reproq_prefork.unix import proc
from reproq_prefork.unix.pidfile import PidFile
from tests.support.unix.children import exit_status_of, forked
from tests.support.waiting import wait_until

REFUSED = ExitStatus.ALREADY_RUNNING


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "master.pid"


def hold(path: Path) -> int:
    PidFile(path).acquire()
    time.sleep(60)
    return 0


def try_to_hold(path: Path) -> int:
    try:
        PidFile(path).acquire()
    except AlreadyRunning as error:
        return error.exit_status
    return 0


def pid_in(path: Path) -> int:
    text = path.read_text() if path.exists() else ""
    return int(text) if text.endswith("\n") else 0


def test_the_file_holds_the_pid_and_goes_with_its_master(path: Path) -> None:
    pid_file = PidFile(path)
    pid_file.acquire()
    assert pid_in(path) == os.getpid()
    pid_file.release()
    assert not path.exists()
    pid_file.release()


def test_a_live_master_is_not_replaced(path: Path) -> None:
    with forked(lambda: hold(path)) as master:
        assert master.pid is not None
        wait_until(lambda: pid_in(path) == master.pid, 5, "the pid file")
        with pytest.raises(AlreadyRunning, match=f"as process {master.pid}"):
            PidFile(path).acquire()
        assert pid_in(path) == master.pid


def test_the_pid_file_of_a_killed_master_is_taken_over(path: Path) -> None:
    with forked(lambda: hold(path)) as master:
        wait_until(lambda: pid_in(path) == master.pid, 5, "the pid file")
        master.kill()
        exit_status_of(master)
    pid_file = PidFile(path)
    pid_file.acquire()
    assert pid_in(path) == os.getpid()
    pid_file.release()


def test_a_file_with_anything_in_it_is_taken_over(path: Path) -> None:
    path.write_text("no pid at all, and longer than one\n")
    pid_file = PidFile(path)
    pid_file.acquire()
    assert path.read_text() == f"{os.getpid()}\n"
    pid_file.release()


def test_a_child_of_a_dead_master_does_not_keep_the_file(path: Path) -> None:
    reader, writer = os.pipe()

    def master() -> int:
        PidFile(path).acquire()
        # As bad a child as can be: it keeps every descriptor, and outlives its parent.
        child = os.fork()
        if child == 0:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            time.sleep(60)
            os._exit(0)
        os.write(writer, child.to_bytes(4, "little"))
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    with forked(master, keep_fds={writer}) as process:
        assert exit_status_of(process) == -signal.SIGKILL
    child = int.from_bytes(os.read(reader, 4), "little")
    try:
        assert proc.identity_of(child) is not None
        pid_file = PidFile(path)
        pid_file.acquire()
        pid_file.release()
    finally:
        os.kill(child, signal.SIGKILL)
        os.close(reader)
        os.close(writer)


def test_a_master_that_leaves_never_lets_two_others_in(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second master opens the file, the first deletes it, then the second locks the deleted file."""
    first = PidFile(path)
    first.acquire()
    real_open = os.open

    def open_then_leave(*args: object) -> int:
        monkeypatch.undo()
        fd = real_open(*args)  # type: ignore[arg-type]
        first.release()
        return fd

    monkeypatch.setattr(os, "open", open_then_leave)
    second = PidFile(path)
    second.acquire()
    # Not read here before: closing any descriptor of the file would give up this process' lock (fcntl(2)).
    with forked(lambda: try_to_hold(path)) as third:
        assert exit_status_of(third) == REFUSED
    assert pid_in(path) == os.getpid()
    second.release()


def test_starts_at_the_same_moment_let_exactly_one_in(path: Path) -> None:
    def enter() -> int:
        try:
            PidFile(path).acquire()
        except AlreadyRunning:
            return REFUSED
        time.sleep(60)
        return 0

    with forked(enter) as one, forked(enter) as two, forked(enter) as three:
        starters = (one, two, three)
        wait_until(lambda: sum(each.exitcode == REFUSED for each in starters) == 2, 10, "two to be refused")
        (left,) = [each for each in starters if each.exitcode is None]
        assert pid_in(path) == left.pid


@pytest.mark.parametrize("where", ["missing/master.pid", "."])
def test_a_file_that_cannot_be_written_is_a_wrong_setting(tmp_path: Path, where: str) -> None:
    with pytest.raises(SettingsError, match=r"--pid-file: .* cannot be written"):
        PidFile(tmp_path / where).acquire()


def test_a_full_disk_is_reported(path: Path) -> None:
    def acquire_without_room() -> int:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        try:
            PidFile(path).acquire()
        except SettingsError as error:
            return error.exit_status
        return 0

    with forked(acquire_without_room) as child:
        assert exit_status_of(child) == ExitStatus.USAGE
