"""An external program for each task: `PROGRAM --payload <json>`, any language.

It runs in a session of its own, with default signal handlers, descriptors 0 to 2 and the one named by
REPROQ_RESULT_FD, and dies with its worker. When it ends, so does everything it has started.
"""

from __future__ import annotations

import errno
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence

from reproq_prefork import processes
from reproq_prefork.executors import NoProcess, Stop, TaskWillNotDie, Watch
from reproq_prefork.executors.output import Output, outcome_of, readable
from reproq_prefork.executors.tail import Tail
from reproq_prefork.settings import (
    MAX_ARGV_PAYLOAD_BYTES,
    MAX_RESULT_BYTES,
    MAX_STDERR_TAIL_BYTES,
    PayloadMode,
)
from reproq_prefork.task_run import Abandoned, ClaimedRun, Ending, Failure, FailureKind, Interrupted, Outcome

TERM_GRACE_S = 2.0  # between SIGTERM at the deadline and SIGKILL
KILL_TIMEOUT_S = 5.0
READ_BYTES = 65_536
READS_AT_ONCE = 16
BLANK_BYTES = 4_096  # around a result of the largest size

# What fork, exec and pipe say where the host has run out, for now, of what a process needs.
OUT_OF_RESOURCES = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE})


class CommandExecutor:
    def __init__(
        self, argv: Sequence[str], *, environ: Mapping[str, str], payload_mode: PayloadMode, directory: str
    ) -> None:
        self._argv = tuple(argv)
        self._environ = dict(environ)
        self._payload_mode = payload_mode
        self._directory = directory

    def run(self, run: ClaimedRun, watch: Watch) -> Ending:
        assert run.payload is not None
        payload = run.payload.encode("utf-8")
        by_stdin = self._payload_mode is PayloadMode.STDIN or len(payload) > MAX_ARGV_PAYLOAD_BYTES
        result_reader, result_writer = _pipe()
        try:
            program = processes.spawn(
                [*self._argv, "--payload", "-" if by_stdin else run.payload],
                environ=self._task_environ(run, watch, result_writer),
                directory=self._directory,
                stdin=subprocess.PIPE if by_stdin else subprocess.DEVNULL,
                keep_fd=result_writer,
            )
        except OSError as error:
            os.close(result_reader)
            return Ending(self._not_started(error))
        finally:
            os.close(result_writer)
        with _Conversation(program, result_reader, payload if by_stdin else b"") as conversation:
            return Ending(conversation.outcome(watch))

    def _task_environ(self, run: ClaimedRun, watch: Watch, result_fd: int) -> dict[str, str]:
        environ = {
            **self._environ,
            "REPROQ_TASK_ID": str(run.id),
            "REPROQ_SPEC_HASH": run.spec_hash,
            "REPROQ_ATTEMPT": str(run.attempt),
            "REPROQ_CLAIM": str(run.claim),
            "REPROQ_RESULT_FD": str(result_fd),
        }
        environ.pop("REPROQ_DEADLINE", None)
        if watch.deadline_unix_s is not None:
            environ["REPROQ_DEADLINE"] = str(int(watch.deadline_unix_s))  # rather early than late
        return environ

    def _not_started(self, error: OSError) -> Failure:
        if error.errno in OUT_OF_RESOURCES:
            raise NoProcess(f"no process can be started: {error.strerror}") from error
        where = f" in {self._directory}" if error.filename == self._directory else ""
        return Failure(
            kind=FailureKind.NOT_STARTED,
            message=f"{self._argv[0]} cannot be started{where}: {error.strerror or error}",
            exception=type(error).__name__,
        )


def _pipe() -> tuple[int, int]:
    try:
        return os.pipe2(os.O_CLOEXEC)
    except OSError as error:
        raise NoProcess(f"no pipe for the task's result: {error.strerror}") from error


class _Conversation:
    """One program's pipes, from its start until nothing of it is left."""

    def __init__(self, program: subprocess.Popen[bytes], result_fd: int, payload: bytes) -> None:
        assert program.stdout is not None
        assert program.stderr is not None
        self._program = program
        self._payload = memoryview(payload)
        self._result_fd = result_fd
        self._stdout = Tail(MAX_RESULT_BYTES + BLANK_BYTES)
        self._stderr = Tail(MAX_STDERR_TAIL_BYTES)
        self._result = Tail(MAX_RESULT_BYTES + BLANK_BYTES)
        self._tails = {
            program.stdout.fileno(): self._stdout,
            program.stderr.fileno(): self._stderr,
            result_fd: self._result,
        }
        # Not epoll, which takes a descriptor: the program runs by now, so nothing here may fail.
        self._selector = selectors.PollSelector()
        for fd in self._tails:
            os.set_blocking(fd, False)
            self._selector.register(fd, selectors.EVENT_READ)
        if program.stdin is not None:
            os.set_blocking(program.stdin.fileno(), False)
            self._selector.register(program.stdin.fileno(), selectors.EVENT_WRITE)

    def __enter__(self) -> _Conversation:
        return self

    def __exit__(self, *_exception: object) -> None:
        # Whatever happened, no process of the task outlives this.
        gone = processes.kill_own_descendants(within_s=KILL_TIMEOUT_S)
        self._program.poll()
        self._selector.close()
        os.close(self._result_fd)
        for stream in (self._program.stdin, self._program.stdout, self._program.stderr):
            if stream is not None:
                stream.close()
        if not gone:
            raise TaskWillNotDie(
                f"process {self._program.pid} or one it started is still there after SIGKILL"
            )

    def outcome(self, watch: Watch) -> Outcome:
        for fd in watch.fds:
            self._selector.register(fd, selectors.EVENT_READ)
        kill_at: float | None = None
        while self._program.poll() is None:
            stop = watch.look()
            if stop is Stop.DEADLINE:
                if kill_at is None:
                    kill_at = time.monotonic() + TERM_GRACE_S
                    processes.send_signal_to_group(self._program.pid, signal.SIGTERM)
                elif time.monotonic() >= kill_at:
                    break
            elif stop is not None:
                return Interrupted(stop.value) if stop is Stop.QUIT else Abandoned(stop.value)
            wait_s = watch.wait_s() if kill_at is None else min(watch.wait_s(), kill_at - time.monotonic())
            self._exchange(max(0.0, wait_s))
        # Before the pipes are emptied: a descendant that holds their other end could keep this waiting.
        exit_status = self._program.returncode
        processes.kill_own_descendants(within_s=KILL_TIMEOUT_S)
        self._exchange(0)
        if kill_at is not None:
            return Failure(
                FailureKind.TIMEOUT, Stop.DEADLINE.value, stderr=readable(self._stderr.bytes()) or None
            )
        return outcome_of(Output(exit_status, self._stdout, self._stderr, self._result))

    def _exchange(self, wait_s: float) -> None:
        """Wait until something moves, then read all that is there and write what fits."""
        for key, _events in self._selector.select(wait_s):
            if key.fd in self._tails:
                self._read(key.fd, self._tails[key.fd])
            elif self._program.stdin is not None and key.fd == self._program.stdin.fileno():
                self._write_payload()

    def _read(self, fd: int, tail: Tail) -> None:
        """Read what is there; at most `READS_AT_ONCE` chunks, so that a flood does not delay the watch."""
        try:
            for _ in range(READS_AT_ONCE):
                chunk = os.read(fd, READ_BYTES)
                if not chunk:
                    self._selector.unregister(fd)
                    return
                tail.feed(chunk)
        except BlockingIOError:
            return

    def _write_payload(self) -> None:
        stdin = self._program.stdin
        assert stdin is not None
        try:
            written = os.write(stdin.fileno(), self._payload[:READ_BYTES])
        except BlockingIOError:
            return
        except BrokenPipeError:
            written = len(self._payload)  # it does not want to read its payload, which may be right
        self._payload = self._payload[written:]
        if not self._payload:
            self._selector.unregister(stdin.fileno())
            stdin.close()
            self._program.stdin = None
