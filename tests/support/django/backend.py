"""A backend that performs each task at once, and what the signals of its family send."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from reproq_prefork.django import ReproqBackend
from reproq_prefork.django.families.compat import families

FAMILY = families()[0]
IMMEDIATE = {"default": {"BACKEND": "reproq_prefork.django.ReproqBackend", "OPTIONS": {"mode": "immediate"}}}


@contextmanager
def heard(name: str) -> Iterator[list[Any]]:
    """What a signal of the family sends: the status and the number of errors each time."""
    found: list[Any] = []

    def hear(sender: Any, task_result: Any, **kwargs: Any) -> None:
        assert sender is ReproqBackend
        found.append((task_result.id, task_result.status, len(task_result.errors)))

    signal = getattr(FAMILY.signals, name)
    signal.connect(hear)
    try:
        yield found
    finally:
        signal.disconnect(hear)
