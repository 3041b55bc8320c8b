"""Runs each Python task in a fork of the worker, which has imported the code. Its crash, leaks and threads end
with it.

The end of what the task prints is stored with the run. `report_json` is the report of its process to the worker.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
from collections.abc import Callable, Collection, Iterator, Mapping
from types import FrameType

from setproctitle import setproctitle

from reproq_prefork.executors.contract import OUT_OF_RESOURCES, NoProcess, Runtime, Stop, Watch
from reproq_prefork.executors.process_ends import begin_task_process, end_task_process
from reproq_prefork.executors.process_io import Conversation, ProcessExit
from reproq_prefork.executors.program_output import readable
from reproq_prefork.executors.python_outcome import outcome_of_error
from reproq_prefork.executors.report_json import MAX_REPORT_BYTES, dump_report, load_report
from reproq_prefork.executors.soft_stop import SignalledStop
from reproq_prefork.executors.tail import Tail
from reproq_prefork.model.outcome import (
    Abandoned,
    AttemptReport,
    Cancelled,
    Completed,
    Failure,
    FailureKind,
    Interrupted,
    Outcome,
    Success,
)
from reproq_prefork.model.run import ClaimedRun
from reproq_prefork.text.outlet import write_text_at_once
from reproq_prefork.unix import kill, proc
from reproq_prefork.unix.own_children import OwnChildren
from reproq_prefork.unix.signals import set_handler, set_mask
from reproq_prefork.unix.task_fork import TaskForks
from reproq_prefork.unix.threads import threads_at_risk

MAX_OUTPUT_BYTES = 64 * 1024

# How the worker asks a task to end. Unless the task sets its own handlers, its process raises the exception that
# the signal means in the task.
_SIGNAL_OF = {Stop.DEADLINE: signal.SIGTERM, Stop.CANCEL: signal.SIGUSR1}


class ForkExecutor:
    batches = False

    def __init__(
        self,
        runtime: Runtime,
        *,
        keep_files: Mapping[int, tuple[int, int]] | None = None,
        memory_bytes: int = 0,
        children: OwnChildren | None = None,
        warned_of: Collection[str] = (),
        warn: Callable[[str], object] | None = None,
    ) -> None:
        """`runtime` is already loaded. `keep_files`: files that it has opened and that tasks also use, such as
        logs.

        `memory_bytes`: limit on the address space of each process of a task; 0: no limit. `children`: those of
        this process that are not a task's. `warn` is called for threads beside which a task is forked, unless
        somebody has `warned_of` them.
        """
        self._forks = TaskForks(memory_bytes=memory_bytes)
        self._runtime = runtime
        self._keep_files = dict(keep_files or {})
        self._children = children
        self._warned_of = set(warned_of)
        self._warn = warn
        self._threads = 1  # how many there were at the last look
        # The objects that exist now stay. If the garbage collector leaves them alone, their pages stay shared with
        # every task.
        gc.collect()
        gc.freeze()

    @property
    def announces(self) -> bool:
        return self._runtime.announces

    def run(self, run: ClaimedRun, watch: Watch) -> AttemptReport:
        def perform(result_fd: int) -> int:
            setproctitle(f"reproq-prefork: task {run.id}")
            return _perform(lambda stop: self._runtime.perform(run, stop), result_fd)

        ended, report, output = self._fork(perform, watch)
        outcome, announced = _settled(ended, report)
        return AttemptReport(outcome, ended.usage(output=output), announced)

    def rest(self) -> None:
        """Do nothing: a task has its own process."""

    def announce(self, run_id: int, watch: Watch) -> str | None:
        def send_announcement(_result_fd: int) -> int:
            setproctitle(f"reproq-prefork: end of task {run_id}")
            set_mask(())
            begin_task_process(_print)
            self._runtime.announce(run_id)
            end_task_process(_print)
            return 0

        ended, _report, output = self._fork(send_announcement, watch)
        if ended.status == 0:
            return None
        why = "" if output is None else output.rpartition("\n")[2]
        return f"{proc.describe_exit(ended.status)}: {why}"

    def _fork(
        self, program: Callable[[int], int], watch: Watch
    ) -> tuple[ProcessExit, AttemptReport | None, str | None]:
        """Run `program` in a fork, to its end. Returns how it ended, its report, and what it printed."""
        self._look_at_threads()
        output, result = Tail(MAX_OUTPUT_BYTES), Tail(MAX_REPORT_BYTES)
        with _may_run_short():
            fork = self._forks.prepared()
        with (
            fork,
            Conversation(
                watch, outputs=((fork.output, output), (fork.result, result)), children=self._children
            ) as conversation,
        ):
            with _may_run_short():
                pid = fork.start(program, keep_fds=self._kept_fds())
            ended = conversation.hold(pid, lambda stop: kill.send_signal(pid, _SIGNAL_OF[stop]))
        said = load_report(result.bytes()) if result.is_whole else None
        return ended, said, _text(output)

    def _look_at_threads(self) -> None:
        threads = proc.thread_count()
        if threads != self._threads:
            self._threads = threads
            names = set(threads_at_risk()) - self._warned_of
            if names and self._warn is not None:
                self._warned_of |= names
                self._warn(beside_threads(names))

    def _kept_fds(self) -> list[int]:
        """The descriptors that still lead to the same files. A number may have been closed and used again."""
        if not self._keep_files:
            return []
        files = proc.open_files()
        return [fd for fd, file in self._keep_files.items() if files.get(fd) == file]


def beside_threads(names: Collection[str]) -> str:
    """The warning that tasks are forked beside these threads."""
    return (
        f"tasks are forked beside threads ({', '.join(sorted(names))}), which they do not have: a lock that such a"
        " thread holds at that moment stays locked in the task; --executor inline forks nothing"
    )


@contextlib.contextmanager
def _may_run_short() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in OUT_OF_RESOURCES:
            raise NoProcess(f"no process can be started: {error.strerror}") from error
        raise


def _perform(perform: Callable[[SignalledStop], AttemptReport], result_fd: int) -> int:
    """In the task's process: run the task and report how it ended. Returns the exit status."""
    stop, own_pid = SignalledStop(), os.getpid()

    def ask(signum: int, frame: FrameType | None) -> None:
        stop.request(Stop.DEADLINE if signum == signal.SIGTERM else Stop.CANCEL, frame)

    for signum in _SIGNAL_OF.values():
        set_handler(signum, ask)
    set_mask(())
    begin_task_process(_print)
    try:
        report = perform(stop)
    except BaseException as error:
        report = AttemptReport(outcome_of_error(error, stop.requested))
    if os.getpid() != own_pid:
        return 0  # a child that the task forked has left the task's code: it must not send the report
    proc.flush_standard_streams()
    said = memoryview(dump_report(report))
    while said:
        said = said[os.write(result_fd, said) :]
    end_task_process(_print)
    return 0 if isinstance(report.outcome, Success | Completed) else 1


def _print(sentence: str) -> None:
    write_text_at_once(2, f"reproq-prefork: {sentence}")


def _settled(ended: ProcessExit, report: AttemptReport | None) -> tuple[Outcome, bool]:
    """The outcome, and whether it was announced.

    The report of the process counts. Only a lost lease overrides it. Without a report, the way in which the
    process ended counts.
    """
    if ended.stop is Stop.LEASE:
        return Abandoned(ended.stop.value), False
    if report is not None:
        return report.outcome, report.announced
    how = proc.describe_exit(ended.status)
    match ended.stop:
        case Stop.DEADLINE:
            return Failure(FailureKind.TIMEOUT, ended.stop.value), False
        case Stop.CANCEL:
            return Cancelled(ended.stop.value), False
        case Stop.QUIT:
            return Interrupted(ended.stop.value), False
        case None if ended.status < 0:
            return Failure(FailureKind.KILLED, how), False
        case None:
            return Failure(FailureKind.FAILED, f"the task ended its process: {how}"), False


def _text(output: Tail) -> str | None:
    kept = output.bytes()
    if not output.is_whole:
        kept = kept[:4].lstrip(bytes(range(0x80, 0xC0))) + kept[4:]  # the rest of a character that was cut
    return readable(kept) or None
