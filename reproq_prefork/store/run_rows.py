"""From a row of `task_runs` to a TaskRun."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from reproq_prefork.store.json_columns import read_json
from reproq_prefork.task_run import Status, TaskRun

_COLUMNS = tuple(field.name for field in fields(TaskRun) if field.name != "created")


def task_run(row: Any, *, created: bool = True) -> TaskRun:
    """The run that a row with all its columns tells of; its JSON comes as text."""
    return TaskRun(
        **{name: getattr(row, name) for name in _COLUMNS}
        | {
            "status": Status(row.status),
            "payload": read_json(row.payload),
            "result": _json(row.result),
            "metadata": _json(row.metadata),
            "last_attempt": _json(row.last_attempt),
            "errors": _errors(row.errors),
            "worker_ids": tuple(row.worker_ids),
        },
        created=created,
    )


def _json(text: str | None) -> Any:
    return None if text is None else read_json(text)


def _errors(text: str) -> tuple[Any, ...]:
    if text == "[]":  # as nearly always
        return ()
    entries = read_json(text)
    return tuple(entries) if isinstance(entries, list) else (entries,)
