"""Enqueue, re-run and read task runs on the caller's own connection, and so in the caller's transaction.

Nothing here commits, rolls back or changes a setting of the connection: a run that was enqueued is there
when the caller commits, with the caller's own data, and is not when the caller rolls back. Any connection
of psycopg will do, whatever its row factory, cursor factory or autocommit.

Errors of psycopg pass through unchanged (a serialization failure is the caller's to retry). Everything that
can be known to be wrong is refused before anything is sent, so it does not end the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import tzinfo
from inspect import Signature, signature
from typing import Any, Concatenate, ParamSpec

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import namedtuple_row

from reproq_prefork.model.new_run import (
    NewRun,
)
from reproq_prefork.model.run import TaskRun
from reproq_prefork.store.deadline import DeadlineConnection
from reproq_prefork.store.fetching import fetch
from reproq_prefork.store.odd_sessions import fetch_binary, writes_iso
from reproq_prefork.store.statements import statement
from reproq_prefork.store.task_runs import TaskRuns

Connection = psycopg.Connection[Any]
Options = ParamSpec("Options")


class PsycopgSender:
    """Sends on a connection of psycopg, as it is."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def zone(self) -> tzinfo:
        return self._connection.info.timezone

    def fetch(self, name: str, parameters: Mapping[str, Any]) -> Sequence[Any]:
        if isinstance(self._connection, DeadlineConnection) and self._connection.settings is not None:
            return fetch(self._connection, statement(name), parameters)  # a command's own, behind a pooler
        if not writes_iso(self._connection):
            return fetch_binary(self._connection, statement(name), parameters)
        # A cursor of our own: the connection's cursor factory may take other placeholders.
        with psycopg.Cursor(self._connection, row_factory=namedtuple_row) as cursor:
            return cursor.execute(statement(name), parameters).fetchall()

    def all_or_nothing(self) -> AbstractContextManager[object]:
        connection = self._connection
        if not connection.autocommit and connection.info.transaction_status == TransactionStatus.IDLE:
            # Any statement begins the caller's transaction; else `transaction` would begin one, and commit it.
            self.fetch("backend_pid", {})
        return connection.transaction()

    def psycopg_connection(self) -> Connection:
        return self._connection


def _takes_what_it_takes(
    of: Callable[Concatenate[object, Options], NewRun],
) -> Callable[[Callable[..., TaskRun]], Callable[Concatenate[Connection, object, Options], TaskRun]]:
    """Gives a function the options of `NewRun.of`, which are listed nowhere else; help() shows them too."""

    def with_options(function: Callable[..., TaskRun]) -> Any:
        own = list(signature(function).parameters.values())[:2]
        options = list(signature(of).parameters.values())[1:]
        function.__signature__ = Signature([*own, *options], return_annotation="TaskRun")  # type: ignore[attr-defined]
        return function

    return with_options


@_takes_what_it_takes(NewRun.of)
def enqueue(connection: Connection, payload: object, **options: Any) -> TaskRun:
    """Add a run of `payload` (a `Spec`, or any JSON value), in the transaction of `connection`.

    `priority`: -100 to 100, higher first. `run_after`: not before this moment, or this long from now by the
    server's clock. `max_attempts`: how often it may start; 1 means at most once. `timeout_seconds`: how long
    an attempt may take; 0 for no deadline, None for what the worker's `--timeout` says. `unique_key`: where
    a run with this key has not finished, no run is added, and that one comes back with `created=False`.
    For Python tasks: `executor`, "fork" or "inline" where it is not to be the host's own; `atomic`, the task
    runs in the transaction that completes it. `retry_base_seconds`, `retry_max_seconds`: in place of the host's.

    Raises SpecError where `payload` is no JSON or too large, InvalidRun (a ValueError) for the rest.
    """
    return enqueue_new(connection, NewRun.of(payload, **options))


def enqueue_new(connection: Connection, new: NewRun) -> TaskRun:
    """Add one run that was checked before; for what makes runs of its own kind, such as Python tasks."""
    return _runs(connection).enqueue(new)


def enqueue_many(connection: Connection, new_runs: Sequence[NewRun]) -> Sequence[TaskRun]:
    """Add many runs by few statements, all or none of them; gives them in the order of `new_runs`.

    `NewRun.of` takes what `enqueue` takes. Ids grow in that order too, so runs that are equal otherwise are taken
    in it; only runs with unique keys are inserted in the order of these keys, and so their ids grow with the key.
    Callers who add the same keys at once, each in an order of their own, therefore never meet a deadlock. (Several
    calls in one transaction may, unless their keys are in order too.) A unique key that is held, by a run that has
    not finished or by an earlier one of `new_runs`, gives that run with `created=False`.

    Of long lists each TaskRun is made when it is looked at, and again at the next look: keep those that are
    needed more than once.
    """
    return _runs(connection).enqueue_many(new_runs)


def requeue(connection: Connection, *, run_id: int | None = None, spec_hash: str | None = None) -> TaskRun:
    """Run again: a new PENDING copy of run `run_id`, or of the newest run of `spec_hash`.

    Queue, payload, priority, `max_attempts`, timeout and unique key are those of the run that is copied,
    whose id is in `replay_of`; it is due at once. Raises RunNotFound, UniqueKeyHeld where a run that has not
    finished holds its key, and InvalidRun for what is no id or no hash.
    """
    if (run_id is None) == (spec_hash is None):
        raise TypeError("requeue() takes either a run_id or a spec_hash")
    if spec_hash is not None:
        return _runs(connection).requeue_newest(spec_hash)
    assert run_id is not None
    return _runs(connection).requeue(run_id)


def cancel(connection: Connection, run_id: int) -> TaskRun:
    """Cancel a run: it ends CANCELLED, and is not tried again. Gives the run as it is then.

    One that waits is CANCELLED at once. One that is RUNNING gets `cancel_requested_at`; when this transaction is
    committed, its worker is told, and ends the task. A run that has finished stays as it is: `status` says how it
    ended. Raises RunNotFound; InvalidRun for what is no id.
    """
    return _runs(connection).cancel(run_id)


def get_run(connection: Connection, run_id: int) -> TaskRun:
    """The run as it is now. Raises RunNotFound; InvalidRun for what is no id.

    `payload` and `result` are as `json_columns.read_json` gives them: equal to what was stored, with a Decimal
    where no float has the value.
    """
    return _runs(connection).get(run_id)


def _runs(connection: Connection) -> TaskRuns:
    return TaskRuns(PsycopgSender(connection))
