"""A task that has been checked and can be enqueued, for any number of calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from reproq_prefork.django.families.compat import Family
from reproq_prefork.django.options import TaskOptions
from reproq_prefork.model.new_run import NewRun
from reproq_prefork.spec import Spec
from reproq_prefork.spec.canonical import is_plain


@dataclass(frozen=True, slots=True)
class CheckedTask:
    path: str
    family: Family
    options: TaskOptions
    queue_name: str
    priority: int
    run_after: datetime | None

    def new_run(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> NewRun:
        """The run to insert for a call. Raises TypeError and ValueError for arguments that are not JSON."""
        spec = Spec.python_task(self.path, self._normal(list(args)), self._normal(dict(kwargs)))
        return self.options.new_run(
            spec,
            args,
            kwargs,
            task_path=self.path,
            queue_name=self.queue_name,
            priority=self.priority,
            run_after=self.run_after,
        )

    def _normal(self, arguments: Any) -> Any:
        # A plain value has the same JSON text, normalized or not.
        return arguments if is_plain(arguments) else self.family.normalize_json(arguments)
