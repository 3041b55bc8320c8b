"""Finds the Task of a stored path. Only modules that the project has named are ever imported for this.

These are all modules inside the packages of installed apps, unless OPTIONS["allowed_task_modules"] lists others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from django.apps import apps

from reproq_prefork.django.families.compat import is_task
from reproq_prefork.django.project.tasks_setting import own_entries
from reproq_prefork.tasks import loader
from reproq_prefork.tasks.loader import allowed_modules

OPTION = "allowed_task_modules"


def load_task(path: str, *, is_allowed: Callable[[str], bool] | None = None) -> Any:
    """The Task at `path`, in a module that the project allows, and `is_allowed` too.

    Raises NotAllowed and TaskNotFound.
    """
    in_the_project = allowed_modules(list(_modules_of_the_project()))
    return loader.load_task(
        path,
        is_allowed=lambda module: in_the_project(module) and (is_allowed is None or is_allowed(module)),
        is_task=is_task,
    )


def why_no_worker_could_load(task: Any) -> str | None:
    """Why workers cannot load the function of `task` from its place; None: they can."""
    module, name = task.func.__module__, task.func.__qualname__
    if "." in name:
        return (
            f"{module}.{name} is not a function of a module, so no worker could import it: move it to the "
            "top level."
        )
    if not allowed_modules(list(_modules_of_the_project()))(module):
        return (
            f"no worker would run {module}.{name}, since its module is not inside an app: add its package to "
            f'INSTALLED_APPS, or name all modules of tasks in OPTIONS["{OPTION}"] of TASKS.'
        )
    return None


def _modules_of_the_project() -> Iterator[str]:
    for entry in own_entries(skip_broken=True):
        named = entry.options.get(OPTION)
        if named is not None:
            yield from named
        else:
            yield from (app.module.__name__ for app in apps.get_app_configs() if app.module is not None)
