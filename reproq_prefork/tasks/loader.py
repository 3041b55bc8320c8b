"""Finds the task that the dotted path of a stored payload names, if an allow-list permits it.

A payload is data that others have written. So its module must be allowed before anything is imported, the path
must lead to a task, and the function of that task must be from an allowed module too.
"""

from __future__ import annotations

import importlib
import keyword
from collections.abc import Callable, Sequence
from typing import Any

from reproq_prefork.errors import ReproqError
from reproq_prefork.text.printable import quoted


class NotAllowed(ReproqError):
    """The path does not name a task that may run here. Another attempt would find the same."""


class TaskNotFound(ReproqError):
    """The module cannot be imported, or has no such name: a deploy may be under way. `__cause__` says why."""


def allowed_modules(names: Sequence[str]) -> Callable[[str], bool]:
    """Whether a module is one of `names` or below: `shop.tasks` allows `shop.tasks.mail`, not `shop.tasks_old`."""
    roots = [tuple(name.split(".")) for name in names]

    def is_allowed(module: str) -> bool:
        segments = tuple(module.split("."))
        return any(segments[: len(root)] == root for root in roots)

    return is_allowed


def split_path(path: str) -> tuple[str, str]:
    """The module and the name in it. Raises NotAllowed if `path` is not a dotted path of at least two parts."""
    module, _dot, name = path.rpartition(".")
    if not module or not all(
        segment.isidentifier() and not keyword.iskeyword(segment) for segment in path.split(".")
    ):
        raise NotAllowed(f"{quoted(path)} is not the dotted path of a task, such as shop.tasks.send_invoice")
    return module, name


def load_task(path: str, *, is_allowed: Callable[[str], bool], is_task: Callable[[object], bool]) -> Any:
    """The task that `path` names. `is_allowed` takes the name of a module. A task has its function as `func`.

    Raises NotAllowed and TaskNotFound.
    """
    module_name, name = split_path(path)
    if not is_allowed(module_name):
        raise NotAllowed(
            f"the module of the task {quoted(path)} is not one of those that may hold tasks here"
        )
    found = _found(module_name, name)
    if not is_task(found):
        raise NotAllowed(f"{quoted(path)} is not a task: its function is not decorated as one")
    home = getattr(found.func, "__module__", None)
    if not isinstance(home, str) or not is_allowed(home):
        raise NotAllowed(
            f"{quoted(path)} is a task of the module {quoted(str(home))}, "
            "which is not one of those that may hold tasks here"
        )
    return found


def _found(module_name: str, name: str) -> Any:
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise TaskNotFound(
            f"the module {module_name} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    try:
        return getattr(module, name)
    except AttributeError as error:
        raise TaskNotFound(f"the module {module_name} has no {name}") from error
