"""With real proc. What a program asserts in a child, the child's exit status tells."""

from __future__ import annotations

import os
import resource
import select
import signal
import sys
import time

import pytest

from reproq_prefork.unix import proc
from reproq_prefork.unix.fork import STATUS_UNKNOWN, Child, fork
from reproq_prefork.unix.signals import SignalInbox
from tests.support.unix.children import Pipe, exit_status_of, forked, open_fds, sleep_for_ever, status_of

NOBODY = 65_534


def test_the_return_value_of_a_program_is_its_exit_status() -> None:
    assert status_of(lambda: 7) == 7


def test_a_program_that_raises_ends_with_one(capfd: pytest.CaptureFixture[str]) -> None:
    def program() -> int:
        raise ValueError("said the program")

    assert status_of(program) == 1
    assert "ValueError: said the program" in capfd.readouterr().err


def test_a_fork_keeps_no_descriptor_but_those_that_are_named(pipe: Pipe) -> None:
    kept, other = os.pipe()

    def program() -> int:
        assert open_fds() == [0, 1, 2, kept]
        return 0

    try:
        assert status_of(program, keep_fds={kept}) == 0
    finally:
        os.close(kept)
        os.close(other)


def test_a_fork_reads_nothing_from_stdin_even_if_its_old_number_is_in_use_again(pipe: Pipe) -> None:
    def program() -> int:
        os.write(pipe.writer, b"of another")
        for number in range(3, 20):
            os.dup2(pipe.reader, number)
        assert sys.stdin.read() == ""
        assert os.read(0, 1) == b""
        return 0

    assert status_of(program, keep_fds={pipe.reader, pipe.writer}) == 0


def test_a_fork_starts_with_all_signals_blocked_and_leaves_its_parents_mask_alone() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())

    def program() -> int:
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        assert blocked >= {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1}
        SignalInbox((signal.SIGTERM,))
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
        return 0

    assert status_of(program) == 0
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_a_signal_between_the_fork_and_the_inbox_is_not_lost(pipe: Pipe) -> None:
    def program() -> int:
        os.read(pipe.reader, 1)  # until it has been signalled
        inbox = SignalInbox((signal.SIGTERM, signal.SIGQUIT))
        assert set(inbox.take()) == {signal.SIGQUIT, signal.SIGTERM}
        return 0

    with forked(program, keep_fds={pipe.reader}) as child:
        os.kill(child.pid, signal.SIGTERM)
        os.kill(child.pid, signal.SIGQUIT)
        os.write(pipe.writer, b"x")
        assert exit_status_of(child) == 0


def test_a_signal_to_a_child_never_reaches_its_parents_inbox() -> None:
    def parent() -> int:
        inbox = SignalInbox((signal.SIGTERM, signal.SIGUSR1))

        def child_of_it() -> int:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())  # before it has an inbox of its own
            os.kill(os.getpid(), signal.SIGUSR1)
            return 0

        assert status_of(child_of_it) == 0
        assert inbox.take() == []
        return 0

    assert status_of(parent) == 0


def test_a_fork_gets_its_signal_when_its_parent_dies(pipe: Pipe) -> None:
    def child() -> int:
        inbox = SignalInbox((signal.SIGTERM,))
        os.write(pipe.writer, b"ready ")
        select.select([inbox], [], [], 10)
        os.write(pipe.writer, b"TERM" if inbox.take() == [signal.SIGTERM] else b"nothing")
        return 0

    def parent() -> int:
        fork(child, keep_fds={pipe.writer}, parent_death_signal=signal.SIGTERM)
        os.close(pipe.writer)
        return sleep_for_ever()

    with forked(parent, keep_fds={pipe.writer}) as process:
        assert os.read(pipe.reader, 6) == b"ready "
        process.kill()
        assert pipe.says() == b"TERM"


def test_a_parent_that_died_before_the_child_could_ask_is_noticed(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait_for_the_parents_death(_keep: object) -> None:
        parent = os.getppid()
        os.write(pipe.writer, b"forked ")
        while os.getppid() == parent:
            time.sleep(0.001)

    def parent() -> int:
        monkeypatch.setattr(proc, "close_other_fds", wait_for_the_parents_death)
        fork(program, keep_fds={pipe.writer}, parent_death_signal=signal.SIGTERM)
        os.close(pipe.writer)
        return sleep_for_ever()

    def program() -> int:
        os.write(pipe.writer, b"ran")
        return 0

    with forked(parent, keep_fds={pipe.writer}) as process:
        assert os.read(pipe.reader, 7) == b"forked "
        process.kill()
        assert pipe.says() == b""


def fork_or_fail() -> bool:
    try:
        process = fork(sleep_for_ever, keep_fds=(), parent_death_signal=signal.SIGKILL)
    except OSError:
        return False
    process.kill()
    return True


def test_a_fork_that_is_refused_leaves_nothing_open_and_no_signal_blocked() -> None:
    def program() -> int:
        SignalInbox(())
        if os.geteuid() == 0:
            os.setuid(NOBODY)  # the limit does not hold for root
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        before = open_fds()
        for _ in range(50):
            assert not fork_or_fail()
        assert open_fds() == before
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
        return 0

    assert status_of(program) == 0


@pytest.mark.parametrize("spare", [0, 1])
def test_a_fork_needs_no_descriptor_and_leaves_none_open(spare: int) -> None:
    def program() -> int:
        before = open_fds()
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(before) + 1 + spare, 1_024))
        forks = [fork_or_fail() for _ in range(20)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (1_024, 1_024))
        assert open_fds() == before
        assert all(forks)
        return 0

    assert status_of(program) == 0


# --- what the parent holds ---


def test_the_exit_code_of_a_killed_child_shows_the_signal() -> None:
    with forked(sleep_for_ever) as child:
        assert child.exitcode is None
        os.kill(child.pid, signal.SIGTERM)
        assert exit_status_of(child) == -signal.SIGTERM


def test_a_child_is_reaped_once_and_remembers_how_it_ended() -> None:
    with forked(lambda: 7) as child:
        assert exit_status_of(child) == 7
        assert child.exitcode == 7
        child.kill()  # harmless: it signals nobody who may have this pid by now
        with pytest.raises(ChildProcessError):
            os.waitpid(child.pid, os.WNOHANG)


def test_a_child_reaped_by_other_code_has_ended_with_an_unknown_status() -> None:
    with forked(lambda: 7) as child:
        os.waitpid(child.pid, 0)
        assert child.exitcode == STATUS_UNKNOWN


def test_a_process_that_is_not_yet_a_child_has_not_ended() -> None:
    assert Child(os.getppid()).exitcode is None


def test_unflushed_output_of_the_parent_is_written_once(capfd: pytest.CaptureFixture[str]) -> None:
    def parent() -> int:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stdout.write("once ")
        return status_of(lambda: 0)

    assert status_of(parent) == 0
    assert capfd.readouterr().out == "once "
