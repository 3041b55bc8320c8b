"""Turns a row of `task_runs` into a TaskRun. This works for every row, whatever is in it."""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import datetime, tzinfo
from typing import Any

from reproq_prefork.errors import UnknownStatus
from reproq_prefork.model.new_run import NewRun
from reproq_prefork.model.run import Status, TaskRun
from reproq_prefork.model.stored_values import in_zone, read_moment, texts_of
from reproq_prefork.spec import PYTHON_TASK_VERSION
from reproq_prefork.store.json_columns import read_json

_OF_TYPE = {field.name: str(field.type) for field in fields(TaskRun) if field.name != "created"}
_TIMES = tuple(name for name, kind in _OF_TYPE.items() if kind.startswith("datetime"))
_JSON = tuple(name for name, kind in _OF_TYPE.items() if kind == "Any")
_PLAIN = tuple(_OF_TYPE.keys() - {*_TIMES, *_JSON, "status", "errors", "worker_ids"})


def task_run(row: Any, zone: tzinfo | None, *, created: bool = True) -> TaskRun:
    """The run of a row with the columns of `parts/run_columns.sql`. `zone`: the sender's zone, for times.

    Raises UnknownStatus.
    """
    history = json.loads(row.history)
    columns: dict[str, Any] = {name: getattr(row, name) for name in _PLAIN}
    columns |= {name: _json(getattr(row, name)) for name in _JSON}
    columns |= {name: _moment(history[name], zone) for name in _TIMES}
    return TaskRun(
        **columns,
        status=read_status(row.id, row.status),
        errors=read_errors(row.errors),
        worker_ids=texts_of(history["worker_ids"]),
        created=created,
    )


def read_status(run_id: int, status: str) -> Status:
    try:
        return Status(status)
    except ValueError:
        raise UnknownStatus(run_id, status) from None


def _moment(text: str | None, zone: tzinfo | None) -> datetime | None:
    return None if text is None else in_zone(read_moment(text), zone)


# What the server decides about a new run. The seconds too, since it stores them in four bytes.
_DECIDED = ("enqueued_at", "run_after", "timeout_seconds", "retry_base_seconds", "retry_max_seconds")


def added_run(new: NewRun, *, run_id: int, **decided: Any) -> TaskRun:
    """The run that `new` has just become. `decided`: the values of the server, the columns of `_DECIDED`."""
    payload = read_json(new.spec.canonical)
    columns: dict[str, Any] = new.columns() | decided
    return TaskRun(id=run_id, payload=payload, task_path=_task_path(payload), **columns)


def inserted_run(new: NewRun, row: Any) -> TaskRun:
    """The same, from a row that an INSERT returned."""
    return added_run(new, run_id=row.id, **{name: getattr(row, name) for name in _DECIDED})


def _task_path(payload: Any) -> str | None:
    """As the generated column computes it."""
    if not isinstance(payload, dict):
        return None
    version, task = payload.get("v"), payload.get("task")
    is_call = version == PYTHON_TASK_VERSION and not isinstance(version, bool) and isinstance(task, str)
    return task if is_call else None


def _json(text: str | None) -> Any:
    return None if text is None else read_json(text)


def read_errors(text: str) -> tuple[Any, ...]:
    """The entries of the column `errors`. A value that is not a list is the only entry."""
    if text == "[]":  # nearly always
        return ()
    entries = read_json(text)
    return tuple(entries) if isinstance(entries, list) else (entries,)
