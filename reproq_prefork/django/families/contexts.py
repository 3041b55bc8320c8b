"""The TaskContext of each family: what a running task may know, and say, of itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from asgiref.sync import sync_to_async

from reproq_prefork.django.families.compat import Family, families


def _context_class_of(family: Family) -> type[Any]:
    """`family`'s TaskContext, with what this backend knows beyond it."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class ReproqTaskContext(family.base.TaskContext):  # type: ignore[name-defined,misc]
        claim: int
        """Grows with each claim of the run: with the run's id a fencing token, to pass on to what must be written
        by the newest attempt only."""

        _is_cancelled: Callable[[], bool] = field(repr=False, compare=False)
        _save: Callable[[Mapping[str, Any]], None] = field(repr=False, compare=False)

        @property
        def cancelled(self) -> bool:
            """Whether somebody has cancelled the task while it ran; TaskCancelled was raised in it then."""
            return self._is_cancelled()

        @property
        def metadata(self) -> Mapping[str, Any]:
            """What was said of the task so far, by earlier attempts too."""
            said = self.task_result.metadata
            return said if isinstance(said, Mapping) else {}

        def save_metadata(self, changes: Mapping[str, Any] | None = None, /, **more: Any) -> None:
            """Say how far the task is: `changes`, JSON values by name, are added to what was said before.

            Others see it at once in the result's `metadata`; from an atomic task, or inside a transaction on the
            queue's database, at the commit.
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
