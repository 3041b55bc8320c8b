"""Runs an external program for each task: `PROGRAM --payload <json>`, in any language.

The program runs in its own session, with default signal handlers. It has the descriptors 0 to 2 and the one that
REPROQ_RESULT_FD names. It dies with its worker. When it ends, everything that it has started ends too.
"""

from __future__ import annotations

import errno
import os
import re
import signal
from collections.abc import Mapping, Sequence

from reproq_prefork.executors.contract import OUT_OF_RESOURCES, NoProcess, NoProgram, Stop, Watch
from reproq_prefork.executors.process_io import Conversation, ProcessExit
from reproq_prefork.executors.program_output import Output, outcome_of, readable
from reproq_prefork.executors.tail import Tail
from reproq_prefork.model.limits import MAX_ARGV_PAYLOAD_BYTES, MAX_RESULT_BYTES, MAX_STDERR_TAIL_BYTES
from reproq_prefork.model.outcome import (
    Abandoned,
    AttemptReport,
    Cancelled,
    Failure,
    FailureKind,
    Interrupted,
    Outcome,
)
from reproq_prefork.model.run import ClaimedRun
from reproq_prefork.settings import PayloadMode
from reproq_prefork.unix import kill
from reproq_prefork.unix.own_children import OwnChildren
from reproq_prefork.unix.spawn import Program, spawn

BLANK_BYTES = 4_096  # white space around a result of the largest size


class CommandExecutor:
    batches = False

    def __init__(
        self,
        argv: Sequence[str],
        *,
        environ: Mapping[str, str],
        payload_mode: PayloadMode,
        directory: str,
        memory_bytes: int = 0,
        children: OwnChildren | None = None,
    ) -> None:
        """`memory_bytes`: limit on the address space of each process of a task; 0: no limit. `children`: those of
        this process that are not a task's.
        """
        self._children = children
        self._argv = tuple(argv)
        self._missing_module = _says_that_it_is_missing(self._argv)
        self._environ = dict(environ)
        self._payload_mode = payload_mode
        self._directory = directory
        self._memory_bytes = memory_bytes

    @property
    def announces(self) -> bool:
        return False

    def rest(self) -> None:
        """Do nothing: a task has its own process."""

    def announce(self, run_id: int, watch: Watch) -> str | None:
        return "ends are not announced to external programs"

    def run(self, run: ClaimedRun, watch: Watch) -> AttemptReport:
        assert run.payload is not None
        payload = run.payload.encode("utf-8")
        by_stdin = self._payload_mode is PayloadMode.STDIN or len(payload) > MAX_ARGV_PAYLOAD_BYTES
        result_reader, result_writer = _pipe()
        try:
            program = spawn(
                [*self._argv, "--payload", "-" if by_stdin else run.payload],
                environ=self._task_environ(run, watch, result_writer),
                directory=self._directory,
                reads=by_stdin,
                keep_fd=result_writer,
                memory_bytes=self._memory_bytes,
            )
        except OSError as error:
            os.close(result_reader)
            return AttemptReport(self._not_started(error))
        finally:
            os.close(result_writer)
        report = _run(program, result_reader, payload if by_stdin else b"", watch, self._children)
        self._refuse_missing_module(report.outcome)
        return report

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
            environ["REPROQ_DEADLINE"] = str(
                int(watch.deadline_unix_s)
            )  # rounded down: better early than late
        return environ

    def _not_started(self, error: OSError) -> Failure:
        if error.errno in OUT_OF_RESOURCES:
            raise NoProcess(f"no process can be started: {error.strerror}") from error
        where = f" in {self._directory}" if error.filename == self._directory else ""
        message = f"{self._argv[0]} cannot be started{where}: {error.strerror or error}"
        if error.errno != errno.E2BIG:
            raise NoProgram(message) from error
        # The payload is one of its arguments, so another run may well be started.
        return Failure(FailureKind.NOT_STARTED, message, exception=type(error).__name__)

    def _refuse_missing_module(self, outcome: Outcome) -> None:
        """Raises NoProgram if Python itself says that the executor module is not there any more."""
        if self._missing_module is None or not isinstance(outcome, Failure) or outcome.stderr is None:
            return
        if self._missing_module.fullmatch(outcome.stderr):
            raise NoProgram(outcome.stderr)


def _says_that_it_is_missing(argv: Sequence[str]) -> re.Pattern[str] | None:
    """Matches all that `python -m MODULE` prints if there is no such module. None: it is another program."""
    if len(argv) != 3 or argv[1] != "-m":
        return None
    module = re.escape(argv[2])
    return re.compile(
        rf"[^\n]*: (?:No module named {module}"
        rf"|Error while finding module specification for '{module}' \(ModuleNotFoundError: [^\n]*\))"
    )


def _pipe() -> tuple[int, int]:
    try:
        return os.pipe2(os.O_CLOEXEC)
    except OSError as error:
        raise NoProcess(f"no pipe for the task's result: {error.strerror}") from error


def _run(
    program: Program, result_fd: int, payload: bytes, watch: Watch, children: OwnChildren | None
) -> AttemptReport:
    stdout, stderr, result = (
        Tail(limit)
        for limit in (MAX_RESULT_BYTES + BLANK_BYTES, MAX_STDERR_TAIL_BYTES, MAX_RESULT_BYTES + BLANK_BYTES)
    )
    try:
        conversation = Conversation(
            watch,
            outputs=((program.stdout, stdout), (program.stderr, stderr), (result_fd, result)),
            stdin=program.stdin,
            payload=payload,
            children=children,
        )
        with conversation:
            ended = conversation.hold(
                program.pid, lambda _stop: kill.send_signal_to_group(program.pid, signal.SIGTERM)
            )
    finally:
        program.close()
        os.close(result_fd)
    return AttemptReport(_outcome(ended, stdout, stderr, result), ended.usage())


def _outcome(ended: ProcessExit, stdout: Tail, stderr: Tail, result: Tail) -> Outcome:
    """If the program was asked to end, its output does not count: nobody can see whether it was cut."""
    match ended.stop:
        case None:
            return outcome_of(Output(ended.status, stdout, stderr, result))
        case Stop.DEADLINE:
            return Failure(FailureKind.TIMEOUT, ended.stop.value, stderr=readable(stderr.bytes()) or None)
        case Stop.CANCEL:
            return Cancelled(ended.stop.value)
        case Stop.QUIT:
            return Interrupted(ended.stop.value)
        case Stop.LEASE:
            return Abandoned(ended.stop.value)
