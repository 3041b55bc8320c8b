"""How one task is executed: the options of `@task`, `.using()`, `@reproq_options` and OPTIONS.

All of these say when and how, never what. So they are not part of the spec, and they never come from the arguments
of a call, which belong to the function.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from reproq_prefork.django.families.compat import is_task
from reproq_prefork.model.new_run import (
    DEFAULT_MAX_ATTEMPTS,
    InvalidRun,
    NewRun,
    Seconds,
    Unique,
    seconds_of,
    unique_key_of,
)
from reproq_prefork.spec import Spec

F = TypeVar("F", bound=Callable[..., Any])

_ATTRIBUTE = "__reproq_options__"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """None: not set here."""

    max_attempts: int | None = None
    timeout: Seconds | None = None
    retry_base: Seconds | None = None
    retry_max: Seconds | None = None
    unique: Unique | None = None
    executor: str | None = None
    atomic: bool | None = None

    def over(self, weaker: TaskOptions) -> TaskOptions:
        """These options; the weaker ones where these are not set."""
        said = {name: getattr(self, name) for name in OPTION_NAMES if getattr(self, name) is not None}
        return replace(weaker, **said)

    def new_run(
        self, spec: Spec, args: Any, kwargs: Mapping[str, Any], *, task_path: str, **timing: Any
    ) -> NewRun:
        """The run to insert. `timing` is queue, priority and time. Raises InvalidRun and SpecError."""
        return NewRun.of(
            spec,
            max_attempts=DEFAULT_MAX_ATTEMPTS if self.max_attempts is None else self.max_attempts,
            timeout_seconds=seconds_of(self.timeout),
            retry_base_seconds=seconds_of(self.retry_base),
            retry_max_seconds=seconds_of(self.retry_max),
            unique_key=unique_key_of(self.unique, task_path, spec, args, kwargs),
            executor=self.executor,
            atomic=bool(self.atomic),
            **timing,
        )

    def check(self) -> None:
        """Raises InvalidRun, a ValueError, for a value that no run can have."""
        if self.unique is not None and not isinstance(self.unique, bool) and not callable(self.unique):
            raise InvalidRun("unique must be True, False, or a function that returns the key.")
        if self.atomic is not None and not isinstance(self.atomic, bool):
            raise InvalidRun("atomic must be True or False.")
        try:
            replace(self, unique=None).new_run(_ANY_SPEC, (), {}, task_path="")
        except InvalidRun as error:
            raise InvalidRun(_OF_THE_ROW.sub(r"\1", str(error))) from None


OPTION_NAMES = tuple(field.name for field in fields(TaskOptions))
_ANY_SPEC = Spec.of(None)
_OF_THE_ROW = re.compile("^(timeout|retry_base|retry_max)_seconds")  # the names in `enqueue` and in the table


def reproq_options(**options: Any) -> Callable[[F], F]:
    """Set how a task is executed. Write it below `@task`:

        @task
        @reproq_options(max_attempts=5, timeout=30)
        def send_invoice(order_id): ...

    It has no effect if another backend runs the task, as in tests with Django's ImmediateBackend. `max_attempts`:
    how many attempts it may have. `timeout`, `retry_base`, `retry_max`: seconds or a timedelta. `unique`: True, or
    a function that gets the arguments of the call and returns a key (None: no key). At most one unfinished run may
    have a key. `executor`: "fork" or "inline". `atomic`: the task runs in the transaction that completes it.

    Raises InvalidRun, a ValueError, for a wrong value, and TypeError for an unknown option, or if it is above
    `@task`.
    """
    given = TaskOptions(**options)
    given.check()

    def note(function: F) -> F:
        if is_task(function):
            raise TypeError(
                "@reproq_options must be below @task, on the function. A task that already exists has "
                ".using(...) for its options."
            )
        setattr(function, _ATTRIBUTE, given.over(options_of_function(function)))
        return function

    return note


def options_of_function(function: Callable[..., Any]) -> TaskOptions:
    found = getattr(function, _ATTRIBUTE, None)
    return found if isinstance(found, TaskOptions) else TaskOptions()


def options_of(task: Any, defaults: TaskOptions) -> TaskOptions:
    """The options of a task: its own fields (`@task(...)`, `.using(...)`), its function's, then the defaults."""
    own = TaskOptions(**{name: getattr(task, name, None) for name in OPTION_NAMES})
    return own.over(options_of_function(task.func)).over(defaults)
