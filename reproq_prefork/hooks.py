"""Functions of the application that a worker calls at certain moments, such as `on_worker_start`.

A function is registered when its module is imported. One that raises, or takes longer than `LIMIT_S`, is reported
and changes nothing else. Imports only the standard library.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

LIMIT_S = 2.0  # for all functions of one moment together, and as long again for what is sent at the end

_Function = TypeVar("_Function", bound=Callable[..., object])


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """An attempt of a Python task that has failed. `is_last`: there will be no other, and the run is FAILED."""

    run_id: int
    task: str  # its dotted path
    queue_name: str
    attempt: int  # 1 for the first
    max_attempts: int
    is_last: bool
    exception: BaseException


class Moment:
    """The functions that are called at one moment, in the order in which they were registered."""

    def __init__(self, name: str, doc: str) -> None:
        self.name = name
        self.functions: list[Callable[..., object]] = []
        self.__doc__ = doc

    def __call__(self, function: _Function) -> _Function:
        """The decorator: registers `function` once, and returns it."""
        if function not in self.functions:
            self.functions.append(function)
        return function

    def call(self, report: Callable[[str], object], *arguments: Any) -> None:
        """Call each function. `report` is called with a sentence for each that raises."""
        for function in self.functions:
            try:
                function(*arguments)
            except Exception as error:
                name = f"{function.__module__}.{getattr(function, '__qualname__', function)}"
                report(f"{self.name}: {name} has failed: {type(error).__name__}: {error}")


on_worker_start = Moment("on_worker_start", "In each worker, after its import or fork, before it is ready.")
on_worker_stop = Moment("on_worker_stop", "In each worker that ends in order, after its last task.")
on_task_process_start = Moment("on_task_process_start", "In the fork of a task, before the task.")
on_task_process_end = Moment("on_task_process_end", "In the fork of a task, after the task.")
on_attempt_failed = Moment(
    "on_attempt_failed",
    "After each failed attempt, in its process, with a FailedAttempt as the only argument.",
)
