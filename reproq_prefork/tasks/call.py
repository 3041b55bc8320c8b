"""The payload of a Python task, read as the call that it is."""

from __future__ import annotations

from typing import Any, NamedTuple

from reproq_prefork.errors import ReproqError
from reproq_prefork.spec import PYTHON_TASK_VERSION
from reproq_prefork.spec.rules import SpecError
from reproq_prefork.spec.values import parse_values


class NotACall(ReproqError):
    """The payload is no call of a Python task."""


class PythonCall(NamedTuple):
    """The dotted path of a task, and its arguments as Python has them."""

    path: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def read_call(payload: str) -> PythonCall:
    """The call that the text of a payload stands for. Raises NotACall."""
    try:
        said = parse_values(payload)
    except SpecError as error:
        raise NotACall(f"the payload cannot be read: {error}") from error
    if not isinstance(said, dict) or not isinstance(said.get("task"), str):
        raise NotACall("the payload names no task")
    version = said.get("v")
    if isinstance(version, bool) or version != PYTHON_TASK_VERSION:
        raise NotACall(f"the payload is of version {version!r}; this release knows {PYTHON_TASK_VERSION}")
    args, kwargs = said.get("args", []), said.get("kwargs", {})
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise NotACall("the args of the payload must be a list, and its kwargs an object")
    return PythonCall(said["task"], tuple(args), kwargs)
