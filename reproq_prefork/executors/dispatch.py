"""An executor that passes each run to the right one: an external program, a fork, or the worker itself."""

from __future__ import annotations

from reproq_prefork.executors.contract import Executor, Watch
from reproq_prefork.model.outcome import AttemptReport, Failure, FailureKind
from reproq_prefork.model.run import ClaimedRun
from reproq_prefork.settings import ExecutorKind


class ChosenExecutor:
    def __init__(
        self, default: ExecutorKind, *, fork: Executor, inline: Executor, command: Executor | None
    ) -> None:
        """`default` runs Python tasks that do not name an executor. `command` runs everything else."""
        self._python = {ExecutorKind.FORK.value: fork, ExecutorKind.INLINE.value: inline}
        self._default = self._python[default.value]
        self._inline = inline
        self._command = command

    @property
    def batches(self) -> bool:
        return self._default.batches

    @property
    def announces(self) -> bool:
        return self._default.announces

    def run(self, run: ClaimedRun, watch: Watch) -> AttemptReport:
        if run.task_path is not None:
            return self._python.get(run.executor or "", self._default).run(run, watch)
        if self._command is not None:
            return self._command.run(run, watch)
        message = "the payload does not name a Python task, and no --command is set that could run it"
        return AttemptReport(Failure(FailureKind.NOT_ALLOWED, message, retry=False))

    def rest(self) -> None:
        self._inline.rest()

    def announce(self, run_id: int, watch: Watch) -> str | None:
        return self._default.announce(run_id, watch)
