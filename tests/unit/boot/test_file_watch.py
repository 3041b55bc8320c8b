"""What counts as a change of the source, and what the watching process makes of it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from reproq_prefork.boot import file_watch
from reproq_prefork.boot.file_watch import Changes, run_watched, scan
from reproq_prefork.text.log import Log, LogFormat, LogLevel
from reproq_prefork.unix.signals import SignalInbox, wait_readable
from tests.support.unix.children import exit_status_of, forked
from tests.support.waiting import wait_until


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_python_files_and_settings_are_watched_and_nothing_else(tmp_path: Path) -> None:
    for name in ("a.py", "shop/tasks.py", ".env", "shop/reproq.toml"):
        write(tmp_path / name)
    for name in (
        "a.txt",
        "a.pyc",
        ".git/a.py",
        "node_modules/a.py",
        "shop/__pycache__/a.py",
        "env/pyvenv.cfg",
        "env/lib/a.py",
    ):
        write(tmp_path / name)
    found = {str(Path(path).relative_to(tmp_path)) for path in scan(tmp_path)}
    assert found == {"a.py", "shop/tasks.py", ".env", "shop/reproq.toml"}


def test_a_burst_of_changes_counts_as_one_change_after_its_end(tmp_path: Path) -> None:
    write(tmp_path / "a.py")
    changes = Changes(tmp_path)
    assert not changes.have_settled()
    write(tmp_path / "a.py", "x")
    assert (changes.have_settled(), changes.are_going_on) == (False, True)
    write(tmp_path / "b.py")
    assert (changes.have_settled(), changes.are_going_on) == (False, True)
    assert (changes.have_settled(), changes.are_going_on) == (True, False)
    assert not changes.have_settled()


@pytest.mark.parametrize("change", ["write", "remove", "touch", "switch"])
def test_every_kind_of_change_is_seen(tmp_path: Path, change: str) -> None:
    current = tmp_path / "current"
    write(tmp_path / "one" / "a.py")
    write(tmp_path / "two" / "a.py")
    current.symlink_to(tmp_path / "one")
    changes = Changes(current)
    match change:
        case "write":
            write(current / "a.py", "x")
        case "remove":
            (current / "a.py").unlink()
        case "touch":
            os.utime(current / "a.py", ns=(1, 1))
        case "switch":
            current.unlink()
            current.symlink_to(tmp_path / "two")
    assert [changes.have_settled(), changes.have_settled()] == [False, True]


def test_the_master_gets_a_signal_for_changes_and_all_others_and_its_status_is_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_watch, "SCAN_INTERVAL_S", 0.05)
    monkeypatch.setattr(file_watch, "SETTLE_INTERVAL_S", 0.05)
    source, diary = tmp_path / "a.py", tmp_path / "diary"
    write(source)

    def master() -> int:
        inbox = SignalInbox((signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM))
        with diary.open("a", buffering=1) as pages:
            pages.write("ready\n")
            while True:
                wait_readable([inbox.fileno()], 10)
                for signum in inbox.take():
                    pages.write(signal.Signals(signum).name + "\n")
                    if signum == signal.SIGTERM:
                        return 7

    def watching() -> int:
        return run_watched(master, tmp_path, Log(LogLevel.ERROR, LogFormat.CONSOLE))

    def seen() -> list[str]:
        return diary.read_text().split() if diary.exists() else []

    with forked(watching) as process:
        assert process.pid is not None
        wait_until(lambda: seen() == ["ready"], 10, "the master to be ready")
        write(source, "x = 1\n")
        wait_until(lambda: seen() == ["ready", "SIGHUP"], 10, "the change to be told")
        os.kill(process.pid, signal.SIGUSR1)
        wait_until(lambda: seen()[-1] == "SIGUSR1", 10, "the signal to be passed on")
        os.kill(process.pid, signal.SIGTERM)
        assert exit_status_of(process) == 7
    assert seen() == ["ready", "SIGHUP", "SIGUSR1", "SIGTERM"]


def test_the_status_for_a_master_killed_by_a_signal_is_that_of_a_shell(tmp_path: Path) -> None:
    def master() -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        sys.exit(0)

    with forked(lambda: run_watched(master, tmp_path, Log(LogLevel.ERROR, LogFormat.CONSOLE))) as process:
        assert exit_status_of(process) == 128 + signal.SIGKILL
