"""Task runs in a Django project: the backend, the models, their admin, `manage.py reproq_worker`.

`INSTALLED_APPS += ["reproq_prefork.django"]`. Nothing is imported until it is asked for: this package is
imported with the settings, when the models are not there yet.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_MODULES = {
    "Discard": "reproq_prefork.verdicts",
    "ReproqBackend": "reproq_prefork.django.backend",
    "Retry": "reproq_prefork.verdicts",
    "TaskCancelled": "reproq_prefork.verdicts",
    "TaskTimeout": "reproq_prefork.verdicts",
    "bulk_enqueue": "reproq_prefork.django.bulk",
    "call": "reproq_prefork.django.bulk",
    "reproq_options": "reproq_prefork.django.options",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
