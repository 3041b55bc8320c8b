"""A Python function as a task, without Django:

    from reproq_prefork import task

    @task(queue_name="mail", max_attempts=5)
    def welcome(user_id):
        ...

    welcome.enqueue(connection, 7)                       # on the caller's connection, in its transaction
    await welcome.aenqueue(connection, 7)                # the same for asyncio
    welcome.using(priority=10).enqueue(connection, 7)
    enqueue_many(connection, [welcome.new_run(each) for each in users])
    welcome(7)                                           # call it directly, here

Options are in the decorator and in `using`, arguments in `enqueue`: so an argument may have any name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Concatenate, Generic, Literal, ParamSpec, TypeVar, overload

from reproq_prefork.model.new_run import (
    DEFAULT_MAX_ATTEMPTS,
    DEFAULT_PRIORITY,
    DEFAULT_QUEUE,
    InvalidRun,
    NewRun,
    RunAfter,
    Seconds,
    Unique,
    seconds_of,
    unique_key_of,
)
from reproq_prefork.model.run import TaskRun
from reproq_prefork.spec import Spec
from reproq_prefork.text.printable import quoted

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class TaskContext:
    """Which attempt of which run this is. It is the first argument of a task with `takes_context=True`."""

    run_id: int
    spec_hash: str
    attempt: int  # 1 for the first
    max_attempts: int
    claim: int  # grows with each claim of the run: a fencing token
    is_cancelled: Callable[[], bool] = dataclasses.field(repr=False, compare=False)

    @property
    def cancelled(self) -> bool:
        """Whether somebody has cancelled the task, and TaskCancelled was raised in it."""
        return self.is_cancelled()


@dataclass(frozen=True)
class Task(Generic[P, R]):
    """A function, and the options of its runs. Raises InvalidRun if an option is not valid."""

    func: Callable[..., R]
    queue_name: str = DEFAULT_QUEUE
    priority: int = DEFAULT_PRIORITY
    max_attempts: int = DEFAULT_MAX_ATTEMPTS
    timeout: Seconds | None = None  # 0: no deadline; None: the worker's --timeout
    retry_base: Seconds | None = None  # None: the worker's --retry-base
    retry_max: Seconds | None = None
    unique: Unique = (
        False  # True: equal calls are enqueued once; a callable returns the key, or None for no key
    )
    executor: str | None = None  # "fork" or "inline"; None: the worker's own
    takes_context: bool = False
    run_after: RunAfter | None = None

    def __post_init__(self) -> None:
        if not isinstance(getattr(self.func, "__qualname__", None), str):
            raise InvalidRun(f"A task is made of a function, not of {quoted(repr(self.func))}.")
        if "<locals>" in self.func.__qualname__ or "." in self.func.__qualname__:
            raise InvalidRun(
                f"The task {self.path} is not a function of a module, so no worker could import it: define it at "
                "the top level of its module."
            )
        NewRun.of({}, **self._options())

    @property
    def path(self) -> str:
        """The dotted path. Workers find the task by it, and payloads name it."""
        return f"{self.func.__module__}.{self.func.__qualname__}"

    def using(self, **options: Any) -> Task[P, R]:
        """The same task with other options: those of the decorator, and `run_after`."""
        unknown = options.keys() - {field.name for field in dataclasses.fields(self)} | (
            options.keys() & {"func"}
        )
        if unknown:
            raise InvalidRun(f"A task has no option {', '.join(sorted(unknown))}.")
        return dataclasses.replace(self, **options)

    def spec(self, *args: P.args, **kwargs: P.kwargs) -> Spec:
        """The spec of a call; its hash is its name. Raises SpecError for arguments that are not JSON."""
        return Spec.python_task(self.path, args, kwargs)

    def enqueue(self, connection: Any, /, *args: P.args, **kwargs: P.kwargs) -> TaskRun:
        """Add a run of this call in the transaction of `connection`. Takes the connections of `runs.enqueue`, and
        raises as it does."""
        # Imported here: workers import tasks too, and their executors use no database.
        from reproq_prefork.store.runs import enqueue_new

        return enqueue_new(connection, self._new_run_for("enqueue", connection, *args, **kwargs))

    async def aenqueue(self, connection: Any, /, *args: P.args, **kwargs: P.kwargs) -> TaskRun:
        """See enqueue(). Takes the connections of `async_runs`."""
        from reproq_prefork.store.async_runs import aenqueue_new

        return await aenqueue_new(connection, self._new_run_for("aenqueue", connection, *args, **kwargs))

    def _new_run_for(self, call: str, connection: Any, /, *args: P.args, **kwargs: P.kwargs) -> NewRun:
        try:
            return self.new_run(*args, **kwargs)
        except TypeError:
            # Of a function for `unique`. If the connection was forgotten, the arguments are wrong too.
            from reproq_prefork.store.callers import check_connection

            check_connection(call, connection)
            raise

    def new_run(self, *args: P.args, **kwargs: P.kwargs) -> NewRun:
        """A run of this call, for `enqueue_many`. Raises as `enqueue` does."""
        if self.func.__module__ == "__main__":
            raise InvalidRun(
                f"{self.path} is defined in the program itself, which no worker can import: put it in a module."
            )
        spec = self.spec(*args, **kwargs)
        key = unique_key_of(self.unique, self.path, spec, args, kwargs)
        return NewRun.of(spec, unique_key=key, **self._options())

    def call(self, *args: Any, **kwargs: Any) -> R:
        """Call the function directly, in this process. If it takes a context, that is the first argument."""
        return self.func(*args, **kwargs)

    __call__ = call

    def _options(self) -> dict[str, Any]:
        return {
            "queue_name": self.queue_name,
            "priority": self.priority,
            "max_attempts": self.max_attempts,
            "timeout_seconds": seconds_of(self.timeout),
            "retry_base_seconds": seconds_of(self.retry_base),
            "retry_max_seconds": seconds_of(self.retry_max),
            "executor": self.executor,
            "run_after": self.run_after,
        }


@overload
def task(function: Callable[P, R], /) -> Task[P, R]: ...


@overload
def task(
    *,
    queue_name: str = ...,
    priority: int = ...,
    max_attempts: int = ...,
    timeout: Seconds | None = ...,
    retry_base: Seconds | None = ...,
    retry_max: Seconds | None = ...,
    unique: Unique = ...,
    executor: str | None = ...,
    takes_context: Literal[True],
) -> Callable[[Callable[Concatenate[TaskContext, P], R]], Task[P, R]]: ...


@overload
def task(
    *,
    queue_name: str = ...,
    priority: int = ...,
    max_attempts: int = ...,
    timeout: Seconds | None = ...,
    retry_base: Seconds | None = ...,
    retry_max: Seconds | None = ...,
    unique: Unique = ...,
    executor: str | None = ...,
    takes_context: Literal[False] = ...,
) -> Callable[[Callable[P, R]], Task[P, R]]: ...


def task(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a function a task, with or without options."""
    if function is not None:
        return Task(function)
    return lambda decorated: Task(decorated, **options)
