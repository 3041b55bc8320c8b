"""The runtime of tasks that are plain Python functions, decorated with `reproq_prefork.task`."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from traceback import extract_tb

from reproq_prefork.errors import ExitStatus, ReproqError
from reproq_prefork.executors.contract import SoftStop, Stop
from reproq_prefork.executors.failed_attempts import report_failed_attempt
from reproq_prefork.executors.python_outcome import failure_of, outcome_of_error, outcome_of_result
from reproq_prefork.model.outcome import AttemptReport, Failure, FailureKind
from reproq_prefork.model.run import ClaimedRun
from reproq_prefork.model.settlement import RetryPolicy
from reproq_prefork.tasks.call import NotACall, read_call
from reproq_prefork.tasks.decorator import Task, TaskContext
from reproq_prefork.tasks.loader import NotAllowed, TaskNotFound, allowed_modules, load_task


class ApplicationBroken(ReproqError):
    """A module of the application cannot be imported."""

    exit_status = ExitStatus.USAGE

    def __init__(self, module: str, error: BaseException) -> None:
        frames = extract_tb(error.__traceback__)
        where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
        super().__init__(
            f"The module {module} of --allowed-task-modules cannot be imported: "
            f"{type(error).__name__}: {error}{where}"
        )


class PythonRuntime:
    announces = False

    def __init__(self, modules: Sequence[str], policy: RetryPolicy) -> None:
        """`modules`: the modules, and all modules below them, that tasks may come from."""
        self._modules = tuple(modules)
        self._policy = policy
        self._is_allowed = allowed_modules(modules)
        self._tasks: dict[str, Task[..., object]] = {}

    def load(self) -> None:
        for module in self._modules:
            try:
                importlib.import_module(module)
            except (Exception, SystemExit) as error:
                raise ApplicationBroken(module, error) from error

    def perform(self, run: ClaimedRun, stop: SoftStop) -> AttemptReport:
        assert run.payload is not None
        try:
            call = read_call(run.payload)
            task = self._tasks.get(call.path) or self._load(call.path)
        except (NotACall, NotAllowed) as refusal:
            return AttemptReport(Failure(FailureKind.NOT_ALLOWED, str(refusal), retry=False))
        except TaskNotFound as trouble:
            return AttemptReport(failure_of(trouble.__cause__ or trouble, str(trouble)))
        context = (_context(run, stop),) if task.takes_context else ()
        try:
            result = stop.call(task.func, (*context, *call.args), call.kwargs)
        except BaseException as error:
            outcome = outcome_of_error(error, stop.requested)
            report_failed_attempt(run, outcome, error, self._policy)
            return AttemptReport(outcome)
        return AttemptReport(outcome_of_result(result))

    def _load(self, path: str) -> Task[..., object]:
        """Load the task and keep it: like an imported module, a task that was found once does not change."""
        task: Task[..., object] = load_task(path, is_allowed=self._is_allowed, is_task=is_task)
        self._tasks[path] = task
        return task

    def announce(self, run_id: int) -> None:
        """Do nothing: for plain functions there is no signal to send."""


def is_task(found: object) -> bool:
    return isinstance(found, Task)


def _context(run: ClaimedRun, stop: SoftStop) -> TaskContext:
    return TaskContext(
        run_id=run.id,
        spec_hash=run.spec_hash,
        attempt=run.attempt,
        max_attempts=run.max_attempts,
        claim=run.claim,
        is_cancelled=lambda: stop.requested is Stop.CANCEL,
    )
