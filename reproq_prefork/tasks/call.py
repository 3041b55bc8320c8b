"""Reads the payload of a Python task as a call."""

from __future__ import annotations

from typing import Any, NamedTuple

from reproq_prefork.errors import ReproqError
from reproq_prefork.spec import PYTHON_TASK_VERSION
from reproq_prefork.spec.rules import SpecError
from reproq_prefork.spec.values import parse_values


class NotACall(ReproqError):
    """The payload is not a call of a Python task."""


class PythonCall(NamedTuple):
    """The dotted path of a task, and its arguments as Python values."""

    path: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def read_call(payload: str) -> PythonCall:
    """The call in the text of a payload. Raises NotACall."""
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
