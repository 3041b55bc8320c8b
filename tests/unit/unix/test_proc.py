"""With real proc. What a program asserts in a child, the child's exit status tells."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from reproq_prefork.model.identity import ProcessIdentity
from reproq_prefork.unix import kill, proc
from tests.support.checkout import CHECKOUT
from tests.support.unix.children import (
    Pipe,
    a_sleeper,
    exit_status_of,
    forked,
    is_gone,
    open_fds,
    read_all,
    sleep_for_ever,
    status_of,
)
from tests.support.waiting import wait_until

NOBODY = 65_534
SYS_CLONE = {"x86_64": 56, "aarch64": 220}
KILL_WITHIN_S = 10.0
LONGER_THAN_A_REACTION_S = 0.1  # of a process that sees that another has gone

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")


# --- descriptors ---


def test_a_child_at_the_descriptor_limit_still_closes_all_other_descriptors(pipe: Pipe) -> None:
    def program() -> int:
        used = open_fds()
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(used) + 1, 1_024))
        proc.close_other_fds({pipe.writer})
        assert open_fds() == [0, 1, 2, pipe.writer]
        return 0

    assert status_of(program, keep_fds={pipe.reader, pipe.writer}) == 0


# --- who is who ---


def test_a_later_process_with_the_same_pid_is_another_process() -> None:
    own = proc.own_identity()
    assert own.pid == os.getpid()
    assert proc.is_alive(own)
    assert not proc.is_alive(ProcessIdentity(own.pid, own.started + 1))


def test_a_zombie_counts_as_gone() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    wait_until(lambda: is_gone(pid), 5, "the child to be a zombie")
    assert Path(f"/proc/{pid}").exists()
    os.waitpid(pid, 0)
    assert is_gone(pid)


def test_a_process_name_with_brackets_does_not_hide_the_process() -> None:
    def program() -> int:
        before = proc.own_identity()
        Path("/proc/self/comm").write_text("a) Z 1 (b", encoding="ascii")
        assert proc.own_identity() == before
        return 0

    assert status_of(program) == 0


def test_two_processes_with_one_pid_differ_in_their_start_time() -> None:
    with forked(sleep_for_ever) as child:
        assert child.pid is not None
        identity = proc.identity_of(child.pid)
        assert identity is not None
        assert identity.started >= proc.own_identity().started
        child.kill()
        assert not proc.is_alive(identity)


def test_a_host_is_the_same_for_all_its_processes() -> None:
    host = proc.host_identity()
    assert status_of(lambda: 0 if proc.host_identity() == host else 1) == 0


def test_a_process_is_signalled_only_if_its_identity_matches() -> None:
    with forked(sleep_for_ever) as child:
        assert child.pid is not None
        identity = proc.identity_of(child.pid)
        assert identity is not None
        earlier = ProcessIdentity(identity.pid, identity.started - 1)
        assert not kill.signal_process(earlier, signal.SIGKILL)
        assert proc.is_alive(identity)
        assert kill.signal_process(identity, signal.SIGKILL)
        assert exit_status_of(child) == -signal.SIGKILL
        assert not kill.signal_process(identity, signal.SIGKILL)


def test_a_process_that_cannot_be_looked_at_is_not_taken_for_dead() -> None:
    def program() -> int:
        proc.adopt_orphans()
        sleeper = a_sleeper()
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, 1_024))
        with pytest.raises(OSError, match="Too many open files"):
            proc.identity_of(sleeper)
        with pytest.raises(OSError, match="Too many open files"):
            proc.children_of(os.getpid())
        assert not kill.kill_own_descendants(within_s=0.05)
        resource.setrlimit(resource.RLIMIT_NOFILE, (1_024, 1_024))
        assert kill.kill_own_descendants(within_s=KILL_WITHIN_S)
        assert is_gone(sleeper)
        return 0

    assert status_of(program) == 0


HIDDEN = f"""
import os, signal
from reproq_prefork.unix import proc
from tests.support.unix.children import a_sleeper
sleeper = proc.identity_of(a_sleeper())
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
assert proc.identity_of(sleeper.pid) is None, "it is hidden"
assert proc.is_alive(sleeper)
pid = os.fork()
if pid == 0:
    os._exit(0)
own = proc.identity_of(pid)
os.waitpid(pid, 0)
assert own is None or not proc.is_alive(own)
"""


def test_a_process_that_is_hidden_is_not_taken_for_dead() -> None:
    in_namespace = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    hide = "mount -o remount,hidepid=2 /proc"
    if subprocess.run([*in_namespace, "sh", "-c", hide], capture_output=True, check=False).returncode:
        pytest.skip("no namespace with a /proc of its own may be made here")
    script = [*in_namespace, "sh", "-c", f'{hide} && exec "$0" -c "$1"', sys.executable, HIDDEN]
    result = subprocess.run(script, capture_output=True, text=True, check=False, timeout=30, cwd=CHECKOUT)
    assert result.returncode == 0, result.stderr


# --- ending trees ---


def test_a_process_has_children_until_the_last_of_them_is_reaped() -> None:
    def program() -> int:
        proc.adopt_orphans()
        assert not proc.has_children()
        child = os.fork()
        if child == 0:
            start_family(in_its_own_session, os.open(os.devnull, os.O_WRONLY))
            os._exit(0)
        assert proc.has_children()
        assert os.waitpid(child, 0) == (child, 0)
        assert proc.has_children(), "what it has left is adopted by the time that it is reaped"
        (orphan,) = proc.children_of(os.getpid())
        os.kill(orphan, signal.SIGKILL)
        wait_until(lambda: is_gone(orphan), 5, "the orphan to be a zombie")
        assert proc.has_children()
        os.waitpid(orphan, 0)
        assert not proc.has_children()
        return 0

    assert status_of(program) == 0


def test_a_child_that_sends_no_signal_at_its_end_is_seen_too() -> None:
    def program() -> int:
        pid = ctypes.CDLL(None).syscall(SYS_CLONE[platform.machine()], 0, None, None, None, None)
        if pid == 0:
            os._exit(0)
        wait_until(lambda: is_gone(pid), 5, "the child to be a zombie")
        assert proc.children_of(os.getpid()) == [pid]
        assert proc.has_children()
        return 0

    assert status_of(program) == 0


def test_the_orphans_of_a_process_that_was_reaped_are_never_overlooked() -> None:
    def program() -> int:
        proc.adopt_orphans()
        for _ in range(10):
            child = os.fork()
            if child == 0:
                if os.fork() == 0:
                    sleep_for_ever()
                os._exit(0)
            os.waitpid(child, 0)
            assert proc.has_children()
            assert kill.kill_own_descendants(within_s=KILL_WITHIN_S)
            assert not proc.has_children()
        return 0

    assert status_of(program) == 0


def test_descendants_are_listed_parents_first(pipe: Pipe) -> None:
    def program() -> int:
        child = os.fork()
        if child == 0:
            os.write(pipe.writer, a_sleeper().to_bytes(4, "little"))
            sleep_for_ever()
        os.write(pipe.writer, child.to_bytes(4, "little"))
        return sleep_for_ever()

    with forked(program, keep_fds={pipe.writer}) as root:
        assert root.pid is not None
        pids = {int.from_bytes(os.read(pipe.reader, 4), "little") for _ in range(2)}
        found = proc.descendants_of([root.pid])
        assert set(found) == pids
        assert proc.children_of(root.pid) == found[:1]
        identity = proc.identity_of(root.pid)
        assert identity is not None
        assert kill.kill_tree(identity, within_s=KILL_WITHIN_S)


def plain(write: Callable[[int], None]) -> None:
    write(os.getpid())


def in_its_own_session(write: Callable[[int], None]) -> None:
    os.setsid()
    write(os.getpid())


def forked_twice(write: Callable[[int], None]) -> None:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            write(os.getpid())
            sleep_for_ever()
        os._exit(0)
    write(os.getpid())


def deaf(write: Callable[[int], None]) -> None:
    for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(signum, signal.SIG_IGN)
    write(os.getpid())


def stopped(write: Callable[[int], None]) -> None:
    write(os.getpid())
    os.kill(os.getpid(), signal.SIGSTOP)


def forking(write: Callable[[int], None]) -> None:
    """Each of its processes forks another and ends at once, or stays and forks on; a bounded bomb."""
    write(os.getpid())
    for generation in range(400):
        if os.fork() == 0:
            if generation % 8:
                os._exit(0)
        elif generation % 3 == 0:
            os._exit(0)


KINDS = [plain, in_its_own_session, forked_twice, deaf, stopped, forking]


def start_family(kind: Callable[[Callable[[int], None]], None], writer: int) -> None:
    if os.fork() == 0:

        def write(pid: int) -> None:
            os.write(writer, pid.to_bytes(4, "little"))

        kind(write)
        sleep_for_ever()


@pytest.mark.parametrize("kind", KINDS)
def test_no_process_started_by_a_child_survives(kind: Callable[[Callable[[int], None]], None]) -> None:
    def program() -> int:
        proc.adopt_orphans()
        spared = a_sleeper()
        reader, writer = os.pipe()
        start_family(kind, writer)
        first = int.from_bytes(os.read(reader, 4), "little")
        assert kill.kill_own_descendants(spare={spared}, within_s=KILL_WITHIN_S)
        assert proc.children_of(os.getpid()) == [spared], "all are reaped, one is spared"
        assert not is_gone(spared)
        assert is_gone(first)
        os.close(writer)
        for pid in pids_in(read_all(reader)):
            assert is_gone(pid)
        assert kill.kill_own_descendants(within_s=KILL_WITHIN_S)
        return 0

    assert status_of(program) == 0


def test_no_process_of_a_tree_can_act_on_the_death_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """All are stopped before the first is killed: two that replace each other would otherwise survive."""
    send_signal = kill.send_signal

    def send_slowly(pid: int, signum: int) -> None:
        send_signal(pid, signum)
        time.sleep(LONGER_THAN_A_REACTION_S)

    monkeypatch.setattr(kill, "send_signal", send_slowly)

    def program() -> int:
        proc.adopt_orphans()
        reader, writer = os.pipe()
        lives_as_long, keep = os.pipe()
        if (
            os.fork() == 0
        ):  # the first to be killed: it has the only other end of the pipe that the last one reads
            sleep_for_ever()
        os.close(keep)
        if os.fork() == 0:
            os.read(lives_as_long, 1)
            os.write(writer, b"it acted")
            sleep_for_ever()
        os.close(writer)
        os.close(lives_as_long)
        assert kill.kill_own_descendants(within_s=KILL_WITHIN_S)
        assert read_all(reader) == b""
        return 0

    assert status_of(program) == 0


def pids_in(written: bytes) -> list[int]:
    return [int.from_bytes(written[at : at + 4], "little") for at in range(0, len(written), 4)]


@pytest.mark.parametrize("kind", KINDS)
def test_no_process_of_an_unrelated_tree_survives(
    kind: Callable[[Callable[[int], None]], None], pipe: Pipe
) -> None:
    def root() -> int:
        proc.adopt_orphans()
        start_family(kind, pipe.writer)
        return sleep_for_ever()

    with forked(root, keep_fds={pipe.writer}) as process:
        assert process.pid is not None
        identity = proc.identity_of(process.pid)
        assert identity is not None
        first = os.read(pipe.reader, 4)
        assert kill.kill_tree(identity, within_s=KILL_WITHIN_S)
        assert is_gone(process.pid)
        # Only now can the pipe end: nobody is left who holds it.
        for pid in pids_in(first + pipe.says()):
            assert is_gone(pid)


def test_a_tree_whose_root_is_another_process_by_now_is_left_alone() -> None:
    with forked(sleep_for_ever) as process:
        assert process.pid is not None
        identity = proc.identity_of(process.pid)
        assert identity is not None
        earlier = ProcessIdentity(identity.pid, identity.started - 1)
        assert kill.kill_tree(earlier, within_s=KILL_WITHIN_S)
        assert proc.is_alive(identity)
        stat = Path(f"/proc/{process.pid}/stat").read_text()
        assert ") T " not in stat, "it was not even stopped"


def test_killing_a_tree_that_is_gone_does_nothing() -> None:
    with forked(lambda: 0) as process:
        assert process.pid is not None
        pid = process.pid
        exit_status_of(process)
    assert kill.kill_tree(ProcessIdentity(pid, 1), within_s=0)


@as_root
def test_a_process_of_another_user_is_reported_without_an_error() -> None:
    def program() -> int:
        proc.adopt_orphans()
        sleeper = a_sleeper()
        identity = proc.identity_of(sleeper)
        assert identity is not None
        os.setresuid(NOBODY, NOBODY, 0)
        assert not kill.kill_own_descendants(within_s=0.05)
        assert not kill.kill_tree(identity, within_s=0.05)
        kill.send_signal_to_group(os.getpgid(sleeper), 0)
        os.seteuid(0)
        assert kill.kill_own_descendants(within_s=KILL_WITHIN_S)
        return 0

    assert status_of(program) == 0


def test_a_signal_to_a_process_that_is_gone_is_not_an_error() -> None:
    with forked(lambda: 0) as process:
        assert process.pid is not None
        pid = process.pid
        exit_status_of(process)
    kill.send_signal(pid, signal.SIGTERM)
    kill.send_signal_to_group(pid, signal.SIGTERM)


# --- words ---


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "exit status 0"),
        (3, "exit status 3"),
        (-9, "killed by signal 9 (SIGKILL)"),
        (-99, "killed by signal 99"),
    ],
)
def test_an_exit_is_described(status: int, words: str) -> None:
    assert proc.describe_exit(status) == words


def test_resident_memory_is_measured_and_zero_for_a_missing_process() -> None:
    assert 1_000 < proc.resident_kib() < 10_000_000
    assert proc.resident_kib(0) == 0
