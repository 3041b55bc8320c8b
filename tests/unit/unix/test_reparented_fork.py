"""With real processes: a supervisor that adopts orphans, a template below it, and what that forks."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable

import pytest

from reproq_prefork.unix import kill, proc
from reproq_prefork.unix.fork import Child, fork
from reproq_prefork.unix.reparented_fork import Handover, IntermediateLost
from reproq_prefork.unix.signals import SignalInbox
from tests.support.unix.children import Pipe, exit_status_of, forked, open_fds, sleep_for_ever, status_of
from tests.support.waiting import wait_until

NOBODY = 65_534


def below_a_supervisor(
    template: Callable[[], int], supervise: Callable[[Child], int], *, keep_fds: set[int]
) -> int:
    """The exit status of a process that adopts orphans, forks `template`, and then is `supervise`."""

    def supervisor() -> int:
        proc.adopt_orphans()
        return supervise(fork(template, keep_fds=keep_fds, parent_death_signal=signal.SIGKILL))

    return status_of(supervisor, keep_fds=keep_fds)


def hand_over(program: Callable[[], int], *, keep_fds: set[int]) -> Handover:
    return Handover(program, keep_fds=keep_fds, parent_death_signal=signal.SIGTERM)


def say_pid(fd: int, pid: int) -> None:
    os.write(fd, pid.to_bytes(4, "little"))


def hear_pid(fd: int) -> int:
    return int.from_bytes(os.read(fd, 4), "little")


def test_a_handed_over_process_is_a_child_of_the_supervisor(pipe: Pipe) -> None:
    def template() -> int:
        parent = os.getppid()
        process = hand_over(lambda: 7 if os.getppid() == parent else 1, keep_fds=set())
        say_pid(pipe.writer, process.pid)
        process.complete()
        return 0

    def supervise(template: Child) -> int:
        worker = Child(hear_pid(pipe.reader))
        assert exit_status_of(worker) == 7
        assert exit_status_of(template) == 0
        assert proc.children_of(os.getpid()) == []
        return 0

    assert below_a_supervisor(template, supervise, keep_fds={pipe.writer, pipe.reader}) == 0


def test_a_handed_over_process_waits_for_the_end_of_the_handover(pipe: Pipe) -> None:
    go_reader, go_writer = os.pipe()
    started_reader, started_writer = os.pipe()

    def template() -> int:
        def program() -> int:
            os.write(started_writer, b"x")
            return sleep_for_ever()

        process = hand_over(program, keep_fds={started_writer})
        say_pid(pipe.writer, process.pid)
        os.read(go_reader, 1)
        process.complete()
        return sleep_for_ever()

    def supervise(template: Child) -> int:
        worker = Child(hear_pid(pipe.reader))
        os.set_blocking(started_reader, False)
        time.sleep(0.05)  # that nothing happens cannot be waited for
        with pytest.raises(BlockingIOError):
            os.read(started_reader, 1)
        assert worker.pid not in proc.children_of(os.getpid())
        assert worker.exitcode is None
        os.write(go_writer, b"x")
        os.set_blocking(started_reader, True)
        os.read(started_reader, 1)
        assert set(proc.children_of(os.getpid())) == {template.pid, worker.pid}
        template.kill()
        assert worker.exitcode is None, "it is not the template's"
        worker.kill()
        return 0

    fds = {pipe.writer, pipe.reader, go_reader, go_writer, started_reader, started_writer}
    try:
        assert below_a_supervisor(template, supervise, keep_fds=fds) == 0
    finally:
        for fd in (go_reader, go_writer, started_reader, started_writer):
            os.close(fd)


def test_a_handed_over_process_starts_as_a_fork_does(pipe: Pipe) -> None:
    """Signals wait until its handlers are set, and only its own descriptors are open."""

    def template() -> int:
        SignalInbox(())
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

        def program() -> int:
            assert open_fds() == [0, 1, 2, pipe.writer]
            assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) >= {signal.SIGTERM, signal.SIGINT}
            inbox = SignalInbox((signal.SIGTERM,))
            assert inbox.take() == [signal.SIGTERM]
            return 7

        process = hand_over(program, keep_fds={pipe.writer})
        os.kill(process.pid, signal.SIGTERM)
        say_pid(pipe.writer, process.pid)
        process.complete()
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
        return 0

    def supervise(template: Child) -> int:
        assert exit_status_of(Child(hear_pid(pipe.reader))) == 7
        assert exit_status_of(template) == 0
        return 0

    assert below_a_supervisor(template, supervise, keep_fds={pipe.writer, pipe.reader}) == 0


@pytest.mark.parametrize("drop", [True, False])
def test_a_handed_over_process_never_starts_if_it_is_dropped_or_its_template_dies(
    pipe: Pipe, drop: bool
) -> None:
    told_reader, told_writer = os.pipe()

    def template() -> int:
        process = hand_over(lambda: os.write(pipe.writer, b"it ran"), keep_fds={pipe.writer})
        say_pid(told_writer, process.pid)
        if drop:
            process.drop()
            return 0
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    def supervise(template: Child) -> int:
        assert exit_status_of(Child(hear_pid(told_reader))) == 0
        exit_status_of(template)
        wait_until(_reaped_all, 5, "the intermediate to be gone too")
        return 0

    fds = {pipe.writer, told_reader, told_writer}
    assert below_a_supervisor(template, supervise, keep_fds=fds) == 0
    os.close(told_reader)
    os.close(told_writer)
    assert pipe.says() == b""


def _reaped_all() -> bool:
    for child in proc.children_of(os.getpid()):
        kill.reap(child)
    return proc.children_of(os.getpid()) == []


@pytest.mark.parametrize("stopped", [False, True])
def test_nothing_remains_if_the_supervisor_dies_during_a_handover(pipe: Pipe, stopped: bool) -> None:
    def template() -> int:
        process = hand_over(lambda: 0, keep_fds=set())
        say_pid(pipe.writer, process.pid)
        (intermediate,) = proc.children_of(os.getpid())
        if stopped:
            os.kill(intermediate, signal.SIGSTOP)
        say_pid(pipe.writer, intermediate)
        return sleep_for_ever()

    def supervisor() -> int:
        proc.adopt_orphans()
        template_process = fork(template, keep_fds={pipe.writer}, parent_death_signal=signal.SIGKILL)
        say_pid(pipe.writer, template_process.pid)
        return sleep_for_ever()

    with forked(supervisor, keep_fds={pipe.writer}) as process:
        pids = [hear_pid(pipe.reader) for _ in range(3)]
        process.kill()
        wait_until(lambda: all(proc.identity_of(pid) is None for pid in pids), 5, "all to be gone")


def test_a_handed_over_process_gets_a_signal_when_its_supervisor_dies(pipe: Pipe) -> None:
    def template() -> int:
        def program() -> int:
            inbox = SignalInbox((signal.SIGTERM,))
            os.write(pipe.writer, b"up")
            wait_until(lambda: inbox.take() == [signal.SIGTERM], 5, "SIGTERM")
            os.write(pipe.writer, b"told")
            return 0

        hand_over(program, keep_fds={pipe.writer}).complete()
        return 0

    def supervisor() -> int:
        proc.adopt_orphans()
        exit_status_of(fork(template, keep_fds={pipe.writer}, parent_death_signal=signal.SIGKILL))
        return sleep_for_ever()

    with forked(supervisor, keep_fds={pipe.writer}) as process:
        assert os.read(pipe.reader, 2) == b"up"
        process.kill()
        assert pipe.says() == b"told"


def test_an_intermediate_that_is_killed_before_it_sent_the_pid_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def template() -> int:
        def kill_itself(_signum: int, _parent: int) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(proc, "die_with_parent", kill_itself)
        before = open_fds()
        with pytest.raises(IntermediateLost):
            hand_over(lambda: 0, keep_fds=set())
        assert open_fds() == before
        assert proc.children_of(os.getpid()) == []
        return 0

    assert status_of(template) == 0


def test_an_intermediate_that_is_killed_later_does_no_harm(pipe: Pipe) -> None:
    def template() -> int:
        process = hand_over(lambda: 7, keep_fds=set())
        os.kill(proc.children_of(os.getpid())[0], signal.SIGKILL)
        say_pid(pipe.writer, process.pid)
        process.complete()
        return 0

    def supervise(template: Child) -> int:
        assert exit_status_of(Child(hear_pid(pipe.reader))) == 7
        assert exit_status_of(template) == 0
        return 0

    assert below_a_supervisor(template, supervise, keep_fds={pipe.writer, pipe.reader}) == 0


def test_a_fork_that_is_refused_leaves_nothing_open_and_no_signal_blocked() -> None:
    def template() -> int:
        SignalInbox(())
        if os.geteuid() == 0:
            os.setuid(NOBODY)  # the limit does not hold for root
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        before = open_fds()
        for _ in range(20):
            with pytest.raises(OSError, match="temporarily"):
                hand_over(lambda: 0, keep_fds=set())
        assert open_fds() == before
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
        return 0

    assert status_of(template) == 0


def test_a_refused_second_fork_is_reported_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def template() -> int:
        this, real_fork = os.getpid(), os.fork

        def fork_only_here() -> int:
            if os.getpid() != this:
                raise BlockingIOError(11, "Resource temporarily unavailable")
            return real_fork()

        monkeypatch.setattr(os, "fork", fork_only_here)
        before = open_fds()
        with pytest.raises(OSError, match="temporarily"):
            hand_over(lambda: 0, keep_fds=set())
        assert open_fds() == before
        assert proc.children_of(os.getpid()) == []
        return 0

    assert status_of(template) == 0
