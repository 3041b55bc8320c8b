"""Enqueue, re-run and read task runs, whoever sends the statements.

The scripts here know what to send and what the answer means (`script.py`). A `Sender` knows on which
connection, and so in which transaction. `runs.py` and `async_runs.py` send on whatever connection the caller
has, the Django backend through Django's own cursors.

Values that are known to be wrong are refused before anything is sent, so they do not end the caller's
transaction. Errors of the database pass through as the sender raises them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from reproq_prefork.errors import ReproqError, RunNotFound, UniqueKeyHeld
from reproq_prefork.model.new_run import InvalidRun, NewRun
from reproq_prefork.model.run import TaskRun
from reproq_prefork.store.bulk import enqueue_many
from reproq_prefork.store.run_rows import inserted_run, task_run
from reproq_prefork.store.script import Ask, Script, play
from reproq_prefork.store.sender import Sender, Session
from reproq_prefork.store.unique_keys import MAX_KEY_TRIES, KeyChangesHands
from reproq_prefork.text.printable import quoted

MAX_ID_SHOWN = 10**30  # str() refuses thousands of digits

_BIGINT = range(-(2**63), 2**63)
_SNAPSHOTS = ("repeatable read", "serializable")  # one for the whole transaction
_SPEC_HASH = re.compile("[0-9a-f]{64}")


class TaskRuns:
    """The table `task_runs` for those who add runs to it and read them. `runs.py` has the contracts."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    def enqueue(self, new: NewRun) -> TaskRun:
        return play(self._sender, enqueue(self._sender, new))

    def enqueue_many(self, new_runs: Sequence[NewRun]) -> Sequence[TaskRun]:
        return play(self._sender, enqueue_many(self._sender, new_runs))

    def requeue(self, run_id: int) -> TaskRun:
        return play(self._sender, requeue(self._sender, run_id))

    def get(self, run_id: int) -> TaskRun:
        return play(self._sender, get(self._sender, run_id))

    def cancel(self, run_id: int) -> TaskRun:
        return play(self._sender, cancel(self._sender, run_id))


def enqueue(session: Session, new: NewRun) -> Script[TaskRun]:
    parameters = _parameters(new)
    for _ in range(MAX_KEY_TRIES):
        row = yield from _one("enqueue_run", parameters)
        if row is not None:
            return inserted_run(new, row)
        holder = yield from _one("run_that_holds_key", {"unique_key": new.unique_key})
        if holder is not None:
            return task_run(holder, session.zone, created=False)
    raise KeyChangesHands(new.unique_key or "")


def requeue(session: Session, run_id: int) -> Script[TaskRun]:
    _check_id(run_id)
    key = ""
    for _ in range(MAX_KEY_TRIES):
        row = yield from _one("requeue_run", {"run_id": run_id})
        if row is not None:
            return task_run(row, session.zone)
        key = (yield from get(session, run_id)).unique_key or ""
        holder = yield from _one("run_that_holds_key", {"unique_key": key})
        if holder is not None:
            raise UniqueKeyHeld(key, holder.id)
    raise KeyChangesHands(key)


def requeue_newest(session: Session, spec_hash: str) -> Script[TaskRun]:
    _check_hash(spec_hash)
    newest = yield from _one("newest_run_of_spec", {"spec_hash": spec_hash})
    if newest is None:
        raise RunNotFound(spec_hash=spec_hash)
    return (yield from requeue(session, newest.id))


def requeue_one(call: str, run_id: int | None, spec_hash: str | None) -> Callable[[Session], Script[TaskRun]]:
    """What `requeue` and `arequeue` send. Raises TypeError unless there is one of the two."""
    if run_id is not None and spec_hash is None:
        return partial(requeue, run_id=run_id)
    if spec_hash is not None and run_id is None:
        return partial(requeue_newest, spec_hash=spec_hash)
    raise TypeError(f"{call}() takes either a run_id or a spec_hash")


def get(session: Session, run_id: int) -> Script[TaskRun]:
    _check_id(run_id)
    row = yield from _one("read_run", {"run_id": run_id})
    if row is None:
        raise RunNotFound(run_id=run_id)
    return task_run(row, session.zone)


class EndNotVisible(ReproqError):
    """The connection of a wait is inside a transaction that will never see the end of the run."""


@dataclass(frozen=True, slots=True)
class Look:
    """A run as one who waits has seen it. `parameters`: those of one more connection to its database."""

    run: TaskRun
    transaction_began: str
    parameters: Mapping[str, Any]


def look_for_end(session: Session, run_id: int, last: Look | None) -> Script[Look]:
    """The run now. `last`: what this has returned before. Raises EndNotVisible."""
    _check_id(run_id)
    row = yield from _one("look_for_end", {"run_id": run_id})
    if row is None:
        raise RunNotFound(run_id=run_id)
    look = Look(task_run(row, session.zone), row.transaction_began, session.connection_parameters())
    if not look.run.is_finished:
        if row.is_uncommitted:
            raise EndNotVisible(
                f"Run {run_id} was enqueued in the transaction that is still open on this connection, so no "
                "worker sees it: commit before you wait for its end."
            )
        same_transaction = last is not None and last.transaction_began == look.transaction_began
        if same_transaction and row.isolation in _SNAPSHOTS:
            raise EndNotVisible(
                f"The transaction on this connection is {row.isolation}, so it never sees the end of run "
                f"{run_id}: end the transaction before you wait, or wait on a connection with autocommit."
            )
    return look


def cancel(session: Session, run_id: int) -> Script[TaskRun]:
    _check_id(run_id)
    row = yield from _one("cancel_run", {"run_id": run_id})
    return (yield from get(session, run_id)) if row is None else task_run(row, session.zone)


def _one(name: str, parameters: Mapping[str, Any]) -> Script[Any]:
    rows = yield Ask(name, parameters)
    return next(iter(rows), None)


def _parameters(new: NewRun) -> dict[str, Any]:
    due = {"run_after": new.run_after, "delay_seconds": new.delay_s}
    return {**new.columns(), **due, "payload": new.spec.canonical}


def _check_id(run_id: object) -> None:
    if isinstance(run_id, bool) or not isinstance(run_id, int):
        raise InvalidRun(f"A run's id is a whole number, not {quoted(repr(run_id))}.")
    if abs(run_id) > MAX_ID_SHOWN:
        raise InvalidRun("A run's id has at most 19 digits.")
    if run_id not in _BIGINT:
        raise RunNotFound(run_id=run_id)


def _check_hash(spec_hash: object) -> None:
    if not isinstance(spec_hash, str) or not _SPEC_HASH.fullmatch(spec_hash):
        raise InvalidRun(
            f"A spec hash is 64 lower-case hexadecimal digits, not {quoted(str(spec_hash))}; "
            "`reproq-prefork show ID` shows the hash of a run."
        )
