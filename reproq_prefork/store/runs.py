"""Enqueue, re-run and read task runs on the caller's own connection, and so in the caller's transaction.

Nothing here commits, rolls back or changes a setting of the connection: a run that was enqueued is there
when the caller commits, with the caller's own data, and is not when the caller rolls back. Any connection
of psycopg will do, whatever its row factory, cursor factory or autocommit.

Errors of psycopg pass through unchanged (a serialization failure is the caller's to retry). Everything that
can be known to be wrong is refused before anything is sent, so it does not end the caller's transaction.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.rows import namedtuple_row

from reproq_prefork.errors import ExitStatus, ReproqError, RunNotFound, UniqueKeyHeld
from reproq_prefork.new_run import (
    DEFAULT_MAX_ATTEMPTS,
    DEFAULT_PRIORITY,
    DEFAULT_QUEUE,
    InvalidRun,
    NewRun,
    RunAfter,
)
from reproq_prefork.printable import quoted
from reproq_prefork.store.json_columns import read_json
from reproq_prefork.store.statements import statement
from reproq_prefork.task_run import Status, TaskRun

MAX_KEY_TRIES = 20
MAX_ID_SHOWN = 10**30  # str() refuses thousands of digits

_BIGINT = range(-(2**63), 2**63)
_SPEC_HASH = re.compile("[0-9a-f]{64}")

Connection = psycopg.Connection[Any]


class KeyChangesHands(ReproqError):
    """Each time somebody else held the key, and had finished before it could be seen who."""

    exit_status = ExitStatus.CONFLICT

    def __init__(self, key: str) -> None:
        super().__init__(
            f"The unique key {quoted(key)} was taken and given back {MAX_KEY_TRIES} times in a row; try again."
        )


def enqueue(
    connection: Connection,
    payload: object,
    *,
    queue_name: str = DEFAULT_QUEUE,
    priority: int = DEFAULT_PRIORITY,
    run_after: RunAfter | None = None,
    max_attempts: int = DEFAULT_MAX_ATTEMPTS,
    timeout_seconds: float | None = None,
    unique_key: str | None = None,
    executor: str | None = None,
    atomic: bool = False,
    retry_base_seconds: float | None = None,
    retry_max_seconds: float | None = None,
) -> TaskRun:
    """Add a run of `payload` (a `Spec`, or any JSON value), in the transaction of `connection`.

    `priority`: -100 to 100, higher first. `run_after`: not before this moment, or this long from now by the
    server's clock. `max_attempts`: how often it may start; 1 means at most once. `timeout_seconds`: how long
    an attempt may take; 0 for no deadline, None for what the worker's `--timeout` says. `unique_key`: where
    a run with this key has not finished, no run is added, and that one comes back with `created=False`.
    For Python tasks: `executor`, "fork" or "inline" where it is not to be the host's own; `atomic`, the task
    runs in the transaction that completes it. `retry_base_seconds`, `retry_max_seconds`: in place of the host's.

    Raises SpecError where `payload` is no JSON or too large, InvalidRun (a ValueError) for the rest.
    """
    new = NewRun.of(
        payload,
        queue_name=queue_name,
        priority=priority,
        run_after=run_after,
        max_attempts=max_attempts,
        timeout_seconds=timeout_seconds,
        unique_key=unique_key,
        executor=executor,
        atomic=atomic,
        retry_base_seconds=retry_base_seconds,
        retry_max_seconds=retry_max_seconds,
    )
    parameters = {
        "queue_name": new.queue_name,
        "payload": new.spec.canonical,
        "spec_hash": new.spec.hash,
        "priority": new.priority,
        "run_after": new.run_after,
        "delay_seconds": new.delay_s,
        "max_attempts": new.max_attempts,
        "timeout_seconds": new.timeout_s,
        "unique_key": new.unique_key,
        "executor": new.executor,
        "atomic": new.atomic,
        "retry_base_seconds": new.retry_base_s,
        "retry_max_seconds": new.retry_max_s,
    }
    for _ in range(MAX_KEY_TRIES):
        row = _one(connection, "enqueue_run", parameters)
        if row is not None:
            return _task_run(row)
        holder = _one(connection, "run_that_holds_key", {"unique_key": new.unique_key})
        if holder is not None:
            return _task_run(holder, created=False)
    raise KeyChangesHands(new.unique_key or "")


def requeue(connection: Connection, *, run_id: int | None = None, spec_hash: str | None = None) -> TaskRun:
    """Run again: a new PENDING copy of run `run_id`, or of the newest run of `spec_hash`.

    Queue, payload, priority, `max_attempts`, timeout and unique key are those of the run that is copied,
    whose id is in `replay_of`; it is due at once. Raises RunNotFound, UniqueKeyHeld where a run that has not
    finished holds its key, and InvalidRun for what is no id or no hash.
    """
    if (run_id is None) == (spec_hash is None):
        raise TypeError("requeue() takes either a run_id or a spec_hash")
    if spec_hash is not None:
        return _requeue_newest(connection, _checked_hash(spec_hash))
    assert run_id is not None
    _check_id(run_id)
    return _requeue(connection, run_id)


def get_run(connection: Connection, run_id: int) -> TaskRun:
    """The run as it is now. Raises RunNotFound; InvalidRun for what is no id.

    `payload` and `result` are as `json_columns.read_json` gives them: equal to what was stored, with a Decimal
    where no float has the value.
    """
    _check_id(run_id)
    row = _one(connection, "read_run", {"run_id": run_id})
    if row is None:
        raise RunNotFound(run_id=run_id)
    return _task_run(row)


def _requeue_newest(connection: Connection, spec_hash: str) -> TaskRun:
    newest = _one(connection, "newest_run_of_spec", {"spec_hash": spec_hash})
    if newest is None:
        raise RunNotFound(spec_hash=spec_hash)
    return _requeue(connection, newest.id)


def _requeue(connection: Connection, run_id: int) -> TaskRun:
    key = ""
    for _ in range(MAX_KEY_TRIES):
        row = _one(connection, "requeue_run", {"run_id": run_id})
        if row is not None:
            return _task_run(row)
        key = get_run(connection, run_id).unique_key or ""
        holder = _one(connection, "run_that_holds_key", {"unique_key": key})
        if holder is not None:
            raise UniqueKeyHeld(key, holder.id)
    raise KeyChangesHands(key)


def _check_id(run_id: object) -> None:
    if isinstance(run_id, bool) or not isinstance(run_id, int):
        raise InvalidRun(f"A run's id is a whole number, not {quoted(repr(run_id))}.")
    if abs(run_id) > MAX_ID_SHOWN:
        raise InvalidRun("A run's id has at most 19 digits.")
    if run_id not in _BIGINT:
        raise RunNotFound(run_id=run_id)


def _checked_hash(spec_hash: object) -> str:
    if not isinstance(spec_hash, str) or not _SPEC_HASH.fullmatch(spec_hash):
        raise InvalidRun(
            f"A spec hash is 64 lower-case hexadecimal digits, not {quoted(str(spec_hash))}; "
            "`reproq-prefork show ID` tells that of a run."
        )
    return spec_hash


def _one(connection: Connection, name: str, parameters: Mapping[str, Any]) -> Any:
    # A cursor of our own: the connection's cursor factory may take other placeholders.
    with psycopg.Cursor(connection, row_factory=namedtuple_row) as cursor:
        return cursor.execute(statement(name), parameters).fetchone()


def _task_run(row: Any, *, created: bool = True) -> TaskRun:
    columns = row._asdict()
    return TaskRun(
        **columns
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
    entries = read_json(text)
    return tuple(entries) if isinstance(entries, list) else (entries,)
