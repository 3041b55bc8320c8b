"""The Task class of each family, with the options that this backend understands."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any

from django.utils.module_loading import import_string

from reproq_prefork.django.families.compat import Family, families
from reproq_prefork.django.options import OPTION_NAMES
from reproq_prefork.model.new_run import Seconds, Unique


def _task_class_of(family: Family) -> type[Any]:
    """`family`'s Task with this backend's options as fields. (A class with slots cannot call `super()` here.)"""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class ReproqTask(family.base.Task):  # type: ignore[name-defined,misc]
        max_attempts: int | None = None
        timeout: Seconds | None = None
        retry_base: Seconds | None = None
        retry_max: Seconds | None = None
        unique: Unique | None = None
        executor: str | None = None
        atomic: bool | None = None

        def using(
            self,
            *,
            priority: int | None = None,
            queue_name: str | None = None,
            run_after: datetime | None = None,
            backend: str | None = None,
            **options: Any,
        ) -> ReproqTask:
            """The same task with other defaults. `options` are those of `reproq_options`."""
            unknown = sorted(options.keys() - set(OPTION_NAMES))
            if unknown:
                raise TypeError(f"using() got an unexpected keyword argument {unknown[0]!r}")
            options.update(priority=priority, queue_name=queue_name, run_after=run_after, backend=backend)
            return replace(self, **{name: value for name, value in options.items() if value is not None})

        # Defined here: Django pickles a task only from 6.1 on.
        def __reduce__(self) -> tuple[Any, ...]:
            said = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "func"}
            return _restored, (family.name, self.module_path, said)

    ReproqTask.__qualname__ = ReproqTask.__name__
    return ReproqTask


_CLASSES = {family: _task_class_of(family) for family in families()}


def task_class_of(family: Family) -> type[Any]:
    return _CLASSES[family]


def _restored(family_name: str, path: str, said: dict[str, Any]) -> Any:
    family = next(family for family in families() if family.name == family_name)
    try:
        function = import_string(path).func
    except (ImportError, AttributeError) as error:
        raise ValueError(f"Expected {path!r} to point to a Task instance.") from error
    return task_class_of(family)(func=function, **said)
