"""Enqueue, re-run and read task runs, whoever sends the statements.

`TaskRuns` knows what to send and what the answer means. A `Sender` knows on which connection, and so in which
transaction. `runs.py` sends through psycopg, the Django backend through Django's own cursors.

Values that are known to be wrong are refused before anything is sent, so they do not end the caller's transaction.
Errors of the database pass through as the sender raises them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from reproq_prefork.errors import RunNotFound, UniqueKeyHeld
from reproq_prefork.model.new_run import InvalidRun, NewRun
from reproq_prefork.model.run import TaskRun
from reproq_prefork.store.bulk import enqueue_many
from reproq_prefork.store.run_rows import inserted_run, task_run
from reproq_prefork.store.sender import Sender
from reproq_prefork.store.unique_keys import MAX_KEY_TRIES, KeyChangesHands
from reproq_prefork.text.printable import quoted

MAX_ID_SHOWN = 10**30  # str() refuses thousands of digits

_BIGINT = range(-(2**63), 2**63)
_SPEC_HASH = re.compile("[0-9a-f]{64}")


class TaskRuns:
    """The table `task_runs` for those who add runs to it and read them. `runs.py` has the contracts."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    def enqueue(self, new: NewRun) -> TaskRun:
        for _ in range(MAX_KEY_TRIES):
            row = self._one("enqueue_run", _parameters(new))
            if row is not None:
                return inserted_run(new, row)
            holder = self._one("run_that_holds_key", {"unique_key": new.unique_key})
            if holder is not None:
                return task_run(holder, self._sender.zone, created=False)
        raise KeyChangesHands(new.unique_key or "")

    def enqueue_many(self, new_runs: Sequence[NewRun]) -> Sequence[TaskRun]:
        return enqueue_many(self._sender, new_runs)

    def requeue(self, run_id: int) -> TaskRun:
        _check_id(run_id)
        key = ""
        for _ in range(MAX_KEY_TRIES):
            row = self._one("requeue_run", {"run_id": run_id})
            if row is not None:
                return task_run(row, self._sender.zone)
            key = self.get(run_id).unique_key or ""
            holder = self._one("run_that_holds_key", {"unique_key": key})
            if holder is not None:
                raise UniqueKeyHeld(key, holder.id)
        raise KeyChangesHands(key)

    def requeue_newest(self, spec_hash: str) -> TaskRun:
        _check_hash(spec_hash)
        newest = self._one("newest_run_of_spec", {"spec_hash": spec_hash})
        if newest is None:
            raise RunNotFound(spec_hash=spec_hash)
        return self.requeue(newest.id)

    def get(self, run_id: int) -> TaskRun:
        _check_id(run_id)
        row = self._one("read_run", {"run_id": run_id})
        if row is None:
            raise RunNotFound(run_id=run_id)
        return task_run(row, self._sender.zone)

    def cancel(self, run_id: int) -> TaskRun:
        _check_id(run_id)
        row = self._one("cancel_run", {"run_id": run_id})
        return self.get(run_id) if row is None else task_run(row, self._sender.zone)

    def _one(self, name: str, parameters: Mapping[str, Any]) -> Any:
        return next(iter(self._sender.fetch(name, parameters)), None)


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
