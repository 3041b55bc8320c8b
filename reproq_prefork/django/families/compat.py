"""The two families of task classes: `django.tasks` of Django 6, and its backport `django_tasks`.

Django 5.2 has only the backport. On Django 6, one project may have both, and both read the same `TASKS` setting.
So one backend class serves both, and each instance belongs to the family whose handler made it. Only this module
knows how the two differ.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from types import FrameType, ModuleType
from typing import Any

NAMES = ("django.tasks", "django_tasks")

# Names that are different in the backport.
_RENAMED = {
    "django.tasks": {},
    "django_tasks": {"InvalidTask": "InvalidTaskError", "InvalidTaskBackend": "InvalidTaskBackendError"},
}


@dataclass(frozen=True, eq=False)
class Family:
    """One of the two families. Its content has the names of Django 6."""

    name: str
    base: ModuleType
    exceptions: ModuleType
    signals: ModuleType
    base_backend: type[Any]
    normalize_json: Callable[[Any], Any]

    def exception(self, name: str) -> type[Exception]:
        found: type[Exception] = getattr(self.exceptions, _RENAMED[self.name].get(name, name))
        return found

    @property
    def backends(self) -> Any:
        """The handler of all backends of this family: a mapping from alias to instance."""
        return import_module(self.name).task_backends

    @property
    def statuses(self) -> Any:
        return self.base.TaskResultStatus


def families() -> tuple[Family, ...]:
    """The installed families, Django's own first."""
    return _FAMILIES


def _is_installed(name: str) -> bool:
    try:
        import_module(f"{name}.base")
    except ModuleNotFoundError as missing:
        if missing.name is None or not f"{name}.base".startswith(missing.name):
            raise
        return False
    return True


def _family(name: str) -> Family:
    json_module = "django.utils.json" if name == "django.tasks" else "django_tasks.utils"
    return Family(
        name=name,
        base=import_module(f"{name}.base"),
        exceptions=import_module(f"{name}.exceptions"),
        signals=import_module(f"{name}.signals"),
        base_backend=import_module(f"{name}.backends.base").BaseTaskBackend,
        normalize_json=import_module(json_module).normalize_json,
    )


# Made once, at import: two threads that come at the same time must find the same families.
_FAMILIES = tuple(_family(name) for name in NAMES if _is_installed(name))
if not _FAMILIES:
    raise ImportError(
        "Neither django.tasks (Django 6) nor its backport is installed: run `pip install django-tasks`."
    )


def base_backends() -> tuple[type[Any], ...]:
    return tuple(family.base_backend for family in families())


def family_of(task: object) -> Family | None:
    """The family of a Task; None: it is not a Task."""
    return next((family for family in families() if isinstance(task, family.base.Task)), None)


def is_task(found: object) -> bool:
    return family_of(found) is not None


def family_of_caller() -> Family:
    """The family whose handler is making a backend at this moment; without a handler, the first family.

    Both handlers import the same class by the same path and call it in the same way. Only the caller differs.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        for family in families():
            if module == family.name or module.startswith(f"{family.name}."):
                return family
        frame = frame.f_back
    return families()[0]
