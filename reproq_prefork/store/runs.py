"""Enqueue, re-run and read task runs on the caller's own connection, and so in the caller's transaction.

Nothing here commits, rolls back or changes a setting of the connection. An enqueued run is saved only if the
caller's transaction commits, together with the caller's own data. `connection_types.Connection` says what may be
given. Only a pool has no transaction of the caller, so there each call commits.

Errors of psycopg pass through unchanged (the caller retries a serialization failure), and so do those of Django
for its connection. Values that are known to be wrong are refused before anything is sent, so they do not end
the caller's transaction. An object that is not a connection is refused with a TypeError.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from inspect import Signature, signature
from typing import Any, Concatenate, ParamSpec, TypeVar

from reproq_prefork.model.new_run import NewRun
from reproq_prefork.model.run import TaskRun
from reproq_prefork.store import bulk, task_runs, waiting
from reproq_prefork.store.callers import send
from reproq_prefork.store.connection_types import Connection

_log = logging.getLogger("reproq_prefork")

Options = ParamSpec("Options")
C = TypeVar("C")
R = TypeVar("R")


def takes_what_it_takes(
    of: Callable[Concatenate[object, Options], NewRun],
) -> Callable[[Callable[Concatenate[C, ...], R]], Callable[Concatenate[C, object, Options], R]]:
    """Gives a function the options of `NewRun.of`, so that they are listed once; help() shows them too."""

    def with_options(function: Callable[..., R]) -> Any:
        own = list(signature(function).parameters.values())[:2]
        options = list(signature(of).parameters.values())[1:]
        function.__signature__ = Signature([*own, *options], return_annotation="TaskRun")  # type: ignore[attr-defined]
        return function

    return with_options


@takes_what_it_takes(NewRun.of)
def enqueue(connection: Connection, payload: object, **options: Any) -> TaskRun:
    """Add a run of `payload` (a `Spec`, or any JSON value), in the transaction of `connection`.

    `priority`: -100 to 100, higher first. `run_after`: the earliest start, as a moment, or as a time from now
    by the server's clock. `max_attempts`: how many attempts it may have; 1 means at most once.
    `timeout_seconds`: how long an attempt may take; 0: no deadline; None: the worker's `--timeout`.
    `unique_key`: if an unfinished run has this key, no run is added, and that run is returned with
    `created=False`. For Python tasks: `executor`, "fork" or "inline", instead of the host's; `atomic`, the task
    runs in the transaction that completes it. `retry_base_seconds`, `retry_max_seconds`: instead of the host's.

    Raises SpecError if `payload` is not JSON or is too large, and InvalidRun (a ValueError) for the rest.
    """
    return enqueue_new(connection, NewRun.of(payload, **options))


def enqueue_new(connection: Connection, new: NewRun) -> TaskRun:
    """Add one run that was already checked. For callers that make their own kind of run, such as Python tasks."""
    return send("enqueue", connection, task_runs.enqueue, new)


def enqueue_many(connection: Connection, new_runs: Sequence[NewRun]) -> Sequence[TaskRun]:
    """Add many runs with few statements, all or none of them. Returns them in the order of `new_runs`.

    `NewRun.of` takes the options of `enqueue`. Ids grow in that order too, so runs that are otherwise equal are
    claimed in it. Only runs with unique keys are inserted in the order of their keys, so their ids grow with
    the key. So callers who add the same keys at once, each in another order, never meet a deadlock. (Several
    calls in one transaction may, unless their keys are in order too.) If a unique key is held, by an unfinished
    run or by an earlier one of `new_runs`, that run is returned with `created=False`.

    Of a long list, each TaskRun is made when you read it, and again at the next read: keep those that you need
    more than once.
    """
    return send("enqueue_many", connection, bulk.enqueue_many, new_runs)


def requeue(connection: Connection, *, run_id: int | None = None, spec_hash: str | None = None) -> TaskRun:
    """Run again: a new PENDING copy of run `run_id`, or of the newest run of `spec_hash`.

    The copy has the queue, payload, priority, `max_attempts`, timeout and unique key of the original, and its
    id in `replay_of`. It is due at once. Raises RunNotFound, UniqueKeyHeld if an unfinished run holds its key,
    and InvalidRun if the id or the hash is not valid.
    """
    return send("requeue", connection, task_runs.requeue_one("requeue", run_id, spec_hash))


def cancel(connection: Connection, run_id: int) -> TaskRun:
    """Cancel a run: it ends CANCELLED, and is not tried again. Returns the run as it is then.

    A PENDING run is CANCELLED at once. A RUNNING run gets `cancel_requested_at`; when this transaction is
    committed, its worker is notified, and ends the task. A finished run does not change: `status` says how it
    ended. Raises RunNotFound, and InvalidRun if the id is not valid.
    """
    return send("cancel", connection, task_runs.cancel, run_id)


def get_run(connection: Connection, run_id: int) -> TaskRun:
    """The run as it is now. Raises RunNotFound, and InvalidRun if the id is not valid.

    `payload` and `result` are as `json_columns.read_json` returns them: equal to what was stored, with a
    Decimal for a number that a float cannot hold.
    """
    return send("get_run", connection, task_runs.get, run_id)


def wait(connection: Connection, run_id: int, *, timeout: float | None = None) -> TaskRun:
    """Wait until a run has finished, for at most `timeout` seconds (None: without a limit). Returns the run.

    Wakes on NOTIFY, on a connection of its own, if it can open one with the parameters of yours; it also polls.
    Each look is a statement on your connection. If that is in a transaction, it stays in it: so a connection
    with autocommit, or a pool, is best.

    Raises TimeoutError; RunNotFound; and EndNotVisible if the run was enqueued in the transaction that is still
    open on this connection, or if that transaction has one snapshot (repeatable read, serializable).
    """
    last: task_runs.Look | None = None

    def look() -> bool:
        nonlocal last
        last = send("wait", connection, task_runs.look_for_end, run_id, last)
        return last.run.is_finished

    def parameters() -> Mapping[str, Any]:
        assert last is not None
        return last.parameters

    waiting.wait(awaited(run_id, parameters), look, timeout)
    assert last is not None
    return last.run


def awaited(run_id: int, parameters: Callable[[], Mapping[str, Any]]) -> waiting.Awaited:
    return waiting.Awaited(run_id, f"run {run_id}", _log, parameters)
