"""Executors of Python tasks in a process like a worker's: one thread, its signals, and nothing left behind."""

from __future__ import annotations

import os
import pickle
import signal
import tempfile
from collections.abc import Callable
from typing import Any, TypeVar

from reproq_prefork.executors.contract import Executor, SoftStop, Watch
from reproq_prefork.executors.python_outcome import outcome_of_error, outcome_of_result
from reproq_prefork.model.outcome import AttemptReport
from reproq_prefork.model.run import ClaimedRun
from reproq_prefork.unix import proc
from reproq_prefork.unix.signals import CANCEL_SIGNAL, SignalInbox
from tests.support.fakes.runs import a_run
from tests.support.fakes.watch import FakeWatch
from tests.support.unix.children import exit_status_of, forked

T = TypeVar("T")


class FunctionRuntime:
    """Runs one function, whatever the payload."""

    def __init__(
        self,
        function: Callable[[], Any] = lambda: None,
        *,
        announces: bool = False,
        announce: Callable[[int], None] = lambda _run_id: None,
    ) -> None:
        self._function = function
        self._announce = announce
        self.announces = announces

    def load(self) -> None:
        pass

    def perform(self, run: ClaimedRun, stop: SoftStop) -> AttemptReport:
        try:
            return AttemptReport(
                outcome_of_result(stop.call(self._function, (), {})), announced=self.announces
            )
        except BaseException as error:
            return AttemptReport(outcome_of_error(error, stop.requested))

    def announce(self, run_id: int) -> None:
        self._announce(run_id)


def in_a_worker(program: Callable[[SignalInbox], T]) -> T:
    """What `program` gives, in a process of its own; no process and no descriptor may be left when it is done."""
    with tempfile.TemporaryFile() as result:

        def worker() -> int:
            inbox = SignalInbox((signal.SIGTERM, signal.SIGQUIT, signal.SIGCHLD, CANCEL_SIGNAL))
            proc.adopt_orphans()
            assert proc.thread_count() == 1
            fds = set(proc.open_files())
            value = program(inbox)
            assert proc.children_of(os.getpid()) == []
            assert set(proc.open_files()) == fds
            result.write(pickle.dumps(value))
            result.flush()
            return 0

        with forked(worker, keep_fds={result.fileno()}) as child:
            assert exit_status_of(child) == 0
        result.seek(0)
        value: T = pickle.load(result)
        return value


def ending_of(
    executor_of: Callable[[FunctionRuntime], Executor],
    function: Callable[[], Any],
    watch: Watch | None = None,
    *,
    announces: bool = False,
) -> AttemptReport:
    def program(_inbox: SignalInbox) -> AttemptReport:
        executor = executor_of(FunctionRuntime(function, announces=announces))
        report = executor.run(a_run(), FakeWatch() if watch is None else watch)
        executor.rest()
        return report

    return in_a_worker(program)
