"""The Django integration: `TASKS = {"default": {"BACKEND": "reproq_prefork.django.ReproqBackend"}}`.

May import every folder but `cli`, `demo` and `boot`. Its own folders are floors too.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reproq_prefork.django.backend import ReproqBackend
    from reproq_prefork.django.bulk import abulk_enqueue, bulk_enqueue, call
    from reproq_prefork.django.options import reproq_options
    from reproq_prefork.task_exceptions import Discard, Retry, Snooze, TaskCancelled, TaskTimeout

__all__ = [
    "Discard",
    "ReproqBackend",
    "Retry",
    "Snooze",
    "TaskCancelled",
    "TaskTimeout",
    "abulk_enqueue",
    "bulk_enqueue",
    "call",
    "reproq_options",
]

_MODULES = {
    "Discard": "reproq_prefork.task_exceptions",
    "ReproqBackend": "reproq_prefork.django.backend",
    "Retry": "reproq_prefork.task_exceptions",
    "Snooze": "reproq_prefork.task_exceptions",
    "TaskCancelled": "reproq_prefork.task_exceptions",
    "TaskTimeout": "reproq_prefork.task_exceptions",
    "abulk_enqueue": "reproq_prefork.django.bulk",
    "bulk_enqueue": "reproq_prefork.django.bulk",
    "call": "reproq_prefork.django.bulk",
    "reproq_options": "reproq_prefork.django.options",
}


def __getattr__(name: str) -> Any:
    # Imported on first use: Django imports this package before its settings can be used.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
