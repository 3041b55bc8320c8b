"""From a row of `task_runs` to a TaskRun: of every row, whatever is in it."""

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

_TIMES = (
    "run_after",
    "lease_expires_at",
    "enqueued_at",
    "started_at",
    "last_attempted_at",
    "finished_at",
    "cancel_requested_at",
    "finish_due_at",
)
_COLUMNS = tuple(
    field.name for field in fields(TaskRun) if field.name not in (*_TIMES, "worker_ids", "created")
)


def task_run(row: Any, zone: tzinfo | None, *, created: bool = True) -> TaskRun:
    """The run of a row with the columns of `parts/run_columns.sql`. `zone`: the sender's, for times.

    Raises UnknownStatus.
    """
    history = json.loads(row.history)
    times: dict[str, Any] = {name: _moment(history[name], zone) for name in _TIMES}
    return TaskRun(
        **{name: getattr(row, name) for name in _COLUMNS}
        | {
            "status": read_status(row.id, row.status),
            "payload": read_json(row.payload),
            "result": _json(row.result),
            "metadata": _json(row.metadata),
            "last_attempt": _json(row.last_attempt),
            "errors": read_errors(row.errors),
        },
        **times,
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


def added_run(
    new: NewRun,
    *,
    run_id: int,
    enqueued_at: datetime,
    run_after: datetime | None,
    timeout_seconds: float | None,
    retry_base_seconds: float | None,
    retry_max_seconds: float | None,
) -> TaskRun:
    """The run that `new` has just become: what the server has decided, and for the rest what a new row has.

    The seconds are as the server has them, which keeps them in four bytes.
    """
    payload = read_json(new.spec.canonical)
    return TaskRun(
        id=run_id,
        queue_name=new.queue_name,
        payload=payload,
        spec_hash=new.spec.hash,
        task_path=_task_path(payload),
        priority=new.priority,
        run_after=run_after,
        status=Status.PENDING,
        attempts=0,
        max_attempts=new.max_attempts,
        timeout_seconds=timeout_seconds,
        claims=0,
        leased_by=None,
        lease_expires_at=None,
        worker_ids=(),
        result=None,
        errors=(),
        enqueued_at=enqueued_at,
        started_at=None,
        last_attempted_at=None,
        finished_at=None,
        replay_of=None,
        unique_key=new.unique_key,
        executor=new.executor,
        atomic=new.atomic,
        retry_base_seconds=retry_base_seconds,
        retry_max_seconds=retry_max_seconds,
        cancel_requested_at=None,
        metadata=None,
        last_attempt=None,
        finish_due_at=None,
    )


def inserted_run(new: NewRun, row: Any) -> TaskRun:
    """The same of a row that an INSERT gave back."""
    return added_run(
        new,
        run_id=row.id,
        enqueued_at=row.enqueued_at,
        run_after=row.run_after,
        timeout_seconds=row.timeout_seconds,
        retry_base_seconds=row.retry_base_seconds,
        retry_max_seconds=row.retry_max_seconds,
    )


def _task_path(payload: Any) -> str | None:
    """As the generated column has it."""
    if not isinstance(payload, dict):
        return None
    version, task = payload.get("v"), payload.get("task")
    is_call = version == PYTHON_TASK_VERSION and not isinstance(version, bool) and isinstance(task, str)
    return task if is_call else None


def _json(text: str | None) -> Any:
    return None if text is None else read_json(text)


def read_errors(text: str) -> tuple[Any, ...]:
    """The entries of the column `errors`; what is no list is the one entry."""
    if text == "[]":  # as nearly always
        return ()
    entries = read_json(text)
    return tuple(entries) if isinstance(entries, list) else (entries,)
