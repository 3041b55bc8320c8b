"""The TaskContext of each family: what a running task may read, and report, about itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from asgiref.sync import sync_to_async

from reproq_prefork.django.families.compat import Family, families


def _context_class_of(family: Family) -> type[Any]:
    """`family`'s TaskContext, with the additions of this backend."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class ReproqTaskContext(family.base.TaskContext):  # type: ignore[name-defined,misc]
        claim: int
        """It grows with each claim of the run. With the run's id it is a fencing token: pass it to systems that
        must accept writes of the newest attempt only."""

        _is_cancelled: Callable[[], bool] = field(repr=False, compare=False)
        _save: Callable[[Mapping[str, Any]], None] = field(repr=False, compare=False)

        @property
        def cancelled(self) -> bool:
            """Whether somebody cancelled the task while it ran. Then TaskCancelled was raised in it."""
            return self._is_cancelled()

        @property
        def metadata(self) -> Mapping[str, Any]:
            """The metadata that the task has saved so far, also in earlier attempts."""
            said = self.task_result.metadata
            return said if isinstance(said, Mapping) else {}

        def save_metadata(self, changes: Mapping[str, Any] | None = None, /, **more: Any) -> None:
            """Save the task's progress: `changes`, JSON values by name, are added to what was saved before.

            Others see it at once in the result's `metadata`. In an atomic task, or inside a transaction on the
            queue's database, they see it at the commit.
            """
            merged = {**self.metadata, **(changes or {}), **more}
            said = family.normalize_json(merged)
            self._save(said)
            object.__setattr__(self.task_result, "metadata", said)

        async def asave_metadata(self, changes: Mapping[str, Any] | None = None, /, **more: Any) -> None:
            """See save_metadata()."""
            await sync_to_async(self.save_metadata, thread_sensitive=True)(changes, **more)

    ReproqTaskContext.__qualname__ = ReproqTaskContext.__name__
    return ReproqTaskContext


_CLASSES = {family: _context_class_of(family) for family in families()}


def context_class_of(family: Family) -> type[Any]:
    return _CLASSES[family]
