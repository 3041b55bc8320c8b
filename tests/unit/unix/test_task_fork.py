"""With real proc. What a program asserts in a child, the child's exit status tells."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from reproq_prefork.unix import proc
from reproq_prefork.unix.signals import SignalInbox
from reproq_prefork.unix.spawn import Program, spawn
from reproq_prefork.unix.task_fork import TaskForks
from tests.support.unix.children import (
    Pipe,
    forked,
    is_gone,
    links_of_fds,
    open_fds,
    read_all,
    sleep_for_ever,
    status_of,
)
from tests.support.waiting import wait_until

# --- another program ---


def spawned(argv: list[str], keep_fd: int, *, environ: Mapping[str, str] = os.environ) -> Program:
    return spawn(argv, environ=environ, directory="/", reads=False, keep_fd=keep_fd)


def output_of(argv: list[str], keep_fd: int, *, environ: Mapping[str, str] = os.environ) -> str:
    program = spawned(argv, keep_fd, environ=environ)
    try:
        out, err = read_all(program.stdout), read_all(program.stderr)
        assert os.waitpid(program.pid, 0) == (program.pid, 0), err
        return out.decode()
    finally:
        os.close(program.stdout)
        os.close(program.stderr)


def test_a_program_starts_with_default_handlers_and_an_empty_mask(pipe: Pipe) -> None:
    def worker() -> int:
        SignalInbox((signal.SIGTERM, signal.SIGCHLD), ignored=(signal.SIGINT, signal.SIGPIPE, signal.SIGHUP))
        signal.signal(signal.SIGRTMIN, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGQUIT})
        status = output_of(["cat", "/proc/self/status"], pipe.writer)
        sets = dict(line.split(":\t") for line in status.splitlines() if line.startswith("Sig"))
        # Not 32 and 33, which are the C library's own: under make they are ignored, and nobody can change that.
        settable = sum(1 << (signum - 1) for signum in signal.valid_signals())
        for name in ("SigBlk", "SigIgn", "SigCgt"):
            assert int(sets[name], 16) & settable == 0, (name, sets[name])
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == {signal.SIGUSR1, signal.SIGQUIT}
        return 0

    assert status_of(worker, keep_fds={pipe.writer}) == 0


def test_a_program_has_its_own_session_and_only_the_descriptors_that_are_its_own(pipe: Pipe) -> None:
    os.set_inheritable(pipe.reader, True)
    script = "import os; print(os.getsid(0) == os.getpid(), os.getcwd(), sorted(os.listdir('/proc/self/fd')))"
    said = output_of([sys.executable, "-c", script], pipe.writer)
    listing = 3 if pipe.writer != 3 else 4
    fds = sorted(map(str, {0, 1, 2, pipe.writer, listing}))
    assert said == f"True / {fds}\n"


def test_a_program_dies_with_its_parent(pipe: Pipe) -> None:
    def parent() -> int:
        program = spawned(["sleep", "60"], pipe.writer)
        os.write(pipe.writer, program.pid.to_bytes(4, "little"))
        return sleep_for_ever()

    with forked(parent, keep_fds={pipe.writer}) as process:
        program = int.from_bytes(os.read(pipe.reader, 4), "little")
        assert not is_gone(program)
        process.kill()
        wait_until(lambda: is_gone(program), 10, "the program to die with its parent")


def test_a_program_whose_parent_died_before_it_could_ask_is_not_started(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_setsid = os.setsid

    def set_sid_when_the_parent_is_dead() -> None:
        parent = os.getppid()
        os.write(pipe.writer, b"forked ")
        while os.getppid() == parent:
            time.sleep(0.001)
        real_setsid()

    def parent() -> int:
        monkeypatch.setattr(os, "setsid", set_sid_when_the_parent_is_dead)
        spawned(["sh", "-c", f"echo ran >&{pipe.writer}"], pipe.writer)
        return 0

    with forked(parent, keep_fds={pipe.writer}) as process:
        assert os.read(pipe.reader, 7) == b"forked "
        process.kill()
        assert pipe.says() == b""


@pytest.mark.parametrize("name", ["/nowhere/at-all", "no-such-program"])
def test_a_program_that_cannot_be_started_leaves_the_mask_and_nothing_open(pipe: Pipe, name: str) -> None:
    def state() -> tuple[object, ...]:
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        return blocked, open_fds(), proc.children_of(os.getpid())

    before = state()
    with pytest.raises(FileNotFoundError) as raised:
        spawned([name], pipe.writer)
    assert raised.value.filename == name
    assert state() == before


def test_a_program_is_found_by_the_path_of_its_own_environment(pipe: Pipe, tmp_path: Path) -> None:
    program = tmp_path / "said-so"
    program.write_text("#!/bin/sh\necho found\n")
    program.chmod(0o755)
    (tmp_path / "a-directory").mkdir()
    path = f"/nowhere:{program}:{tmp_path / 'a-directory'}:{tmp_path}"
    assert output_of(["said-so"], pipe.writer, environ={"PATH": path}) == "found\n"
    with pytest.raises(FileNotFoundError):
        spawned(["said-so"], pipe.writer)


def test_a_program_that_may_not_be_run_is_not_reported_as_missing(pipe: Pipe, tmp_path: Path) -> None:
    (tmp_path / "program").write_text("#!/bin/sh\n")
    with pytest.raises(PermissionError):
        spawned(["program"], pipe.writer, environ={"PATH": f"{tmp_path}:/nowhere"})


def test_a_program_may_get_bytes_that_are_not_text(pipe: Pipe) -> None:
    name = b"a\xffb".decode(errors="surrogateescape")
    said = output_of(
        ["sh", "-c", 'test "$1" = "$NAME" && echo same', "sh", name], pipe.writer, environ={"NAME": name}
    )
    assert said == "same\n"


def test_a_signal_while_a_program_starts_ends_it_and_no_other_process(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_setsid = os.setsid

    def signal_oneself() -> None:
        real_setsid()
        os.kill(os.getpid(), signal.SIGTERM)

    def worker() -> int:
        inbox = SignalInbox((signal.SIGTERM,))
        monkeypatch.setattr(os, "setsid", signal_oneself)
        program = spawned(["sleep", "60"], pipe.writer)
        _pid, status = os.waitpid(program.pid, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM
        assert inbox.take() == []
        return 0

    assert status_of(worker, keep_fds={pipe.writer}) == 0


def without_standard_descriptors(program: Callable[[], int]) -> Callable[[], int]:
    """`program` in a process that was started with 0 to 2 closed; a failed assertion is its exit status only."""

    def closed() -> int:
        for fd in range(3):
            os.close(fd)
        return program()

    return closed


def test_a_program_of_a_process_without_standard_descriptors_has_its_own(pipe: Pipe) -> None:
    def worker() -> int:
        said = output_of(["sh", "-c", "cat; echo to stdout; echo to stderr >&2"], pipe.writer)
        return 0 if said == "to stdout\n" else 1

    assert status_of(without_standard_descriptors(worker), keep_fds={pipe.writer}) == 0


# --- a fork ---


def test_a_fork_of_a_process_without_standard_descriptors_has_its_own(pipe: Pipe) -> None:
    def task(result_fd: int) -> int:
        print("to stdout")
        print("to stderr", file=sys.stderr)
        os.write(result_fd, repr((sys.stdin is None, os.read(0, 1), sorted(links_of_fds().items()))).encode())
        return 7

    def worker() -> int:
        with TaskForks().prepared() as fork:
            pid = fork.start(task)
            assert read_all(fork.output) == b"to stdout\nto stderr\n"
            os.write(pipe.writer, read_all(fork.result))
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert status_of(without_standard_descriptors(worker), keep_fds={pipe.writer}) == 7
    links = pipe.says().decode()
    assert links.count("pipe:") == 3
    assert "('0', '/dev/null'), ('1', 'pipe:" in links


def test_the_streams_of_a_fork_are_like_those_that_are_opened() -> None:
    def task(result_fd: int) -> int:
        for stream, fd in ((sys.stdout, 1), (sys.stderr, 2)):
            opened = open(fd, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
            for name in ("name", "mode", "encoding", "errors", "line_buffering", "write_through", "newlines"):
                assert getattr(stream, name) == getattr(opened, name), name
            assert (stream.fileno(), stream.isatty(), stream.seekable()) == (fd, False, False)
            assert stream.buffer.name == fd
            stream.write("a line, \ud800\n")
            stream.write("half of one")
        return 0

    def worker() -> int:
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), 1)
            os.lseek(1, 100, os.SEEK_SET)
            forks = TaskForks()
            for _ in range(2):
                with forks.prepared() as fork:
                    pid = fork.start(task)
                    assert read_all(fork.output) == b"a line, \\ud800\n" * 2 + b"half of one" * 2
                    assert os.waitpid(pid, 0) == (pid, 0)
        return 0

    assert status_of(worker) == 0
