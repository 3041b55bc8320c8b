"""A router of the tests' site."""

from __future__ import annotations

from typing import Any, ClassVar


class Changeable:
    """Says of the runs what it was told to say last, and nothing of all else."""

    alias: ClassVar[str] = "default"

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        return self.alias if model._meta.app_label == "reproq_prefork" else None
