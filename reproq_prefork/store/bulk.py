"""Many runs at once: one INSERT for some thousands of them, or a COPY where there are more.

The INSERT has one parameter, a JSON array, so it is one statement for any number of rows. A COPY can neither give
back what it has inserted nor step over a key that is held, so its ids are drawn before, and runs with unique keys
never go by it.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime, timedelta, tzinfo
from operator import attrgetter
from typing import overload

import psycopg

from reproq_prefork.new_run import NewRun
from reproq_prefork.store.run_rows import added_run, inserted_run, task_run
from reproq_prefork.store.sender import Sender
from reproq_prefork.store.statements import statement
from reproq_prefork.store.unique_keys import MAX_KEY_TRIES, KeyChangesHands
from reproq_prefork.task_run import TaskRun

# Measured (a local server, fsync on): the INSERT is faster up to 200 runs; a COPY takes 20 % less time at 500 and
# 40 % less from 2,000 on. It takes four more round trips, so it wins where that is more than these.
COPY_FROM = 500
BATCH_RUNS = 5_000
BATCH_BYTES = 8 << 20  # of payloads, and one that is larger; the server holds a few copies of a batch


def enqueue_many(sender: Sender, new_runs: Sequence[NewRun]) -> Sequence[TaskRun]:
    """As `runs.enqueue_many`."""
    has_keys = any(new.unique_key is not None for new in new_runs)
    if len(new_runs) > COPY_FROM and not has_keys:
        copied = _copied(sender, new_runs)
        if copied is not None:
            return copied
    batches = list(_batches(new_runs))
    with sender.all_or_nothing() if has_keys or len(batches) > 1 else nullcontext():
        return [run for batch in batches for run in _inserted(sender, batch)]


def _batches(new_runs: Sequence[NewRun]) -> Iterator[Sequence[NewRun]]:
    batch: list[NewRun] = []
    size = 0
    for new in new_runs:
        batch.append(new)
        size += len(new.spec.canonical)
        if len(batch) >= BATCH_RUNS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _inserted(sender: Sender, batch: Sequence[NewRun]) -> list[TaskRun]:
    """One batch; `runs` has, by place in the batch, what has become of it so far."""
    first_of: dict[str, int] = {}
    waiting = [
        place
        for place, new in enumerate(batch)
        if new.unique_key is None or first_of.setdefault(new.unique_key, place) == place
    ]
    runs: dict[int, TaskRun] = {}
    for _ in range(MAX_KEY_TRIES):
        runs |= _insert(sender, batch, waiting)
        waiting = [place for place in waiting if place not in runs]
        if not waiting:
            break
        runs |= _holders(sender, batch, waiting)
        waiting = [place for place in waiting if place not in runs]
    if waiting:
        raise KeyChangesHands(batch[waiting[0]].unique_key or "")
    return [
        runs[place] if place in runs else replace(runs[first_of[new.unique_key or ""]], created=False)
        for place, new in enumerate(batch)
    ]


def _insert(sender: Sender, batch: Sequence[NewRun], places: Sequence[int]) -> dict[int, TaskRun]:
    """What was inserted. Ids grow with the places, and where one is missing its key is held."""
    text = _as_json(batch[place] for place in places)
    rows = iter(sorted(sender.fetch("enqueue_runs", {"runs": text}), key=lambda row: int(row.id)))
    row = next(rows, None)
    inserted: dict[int, TaskRun] = {}
    for place in places:
        if row is not None and row.unique_key == batch[place].unique_key:
            inserted[place] = inserted_run(batch[place], row)
            row = next(rows, None)
    return inserted


def _holders(sender: Sender, batch: Sequence[NewRun], places: Sequence[int]) -> dict[int, TaskRun]:
    keys = json.dumps([batch[place].unique_key for place in places])
    holders = {row.unique_key: row for row in sender.fetch("runs_that_hold_keys", {"keys": keys})}
    return {
        place: task_run(holders[batch[place].unique_key], sender.zone, created=False)
        for place in places
        if batch[place].unique_key in holders
    }


def _as_json(new_runs: Iterable[NewRun]) -> str:
    """A JSON array. A payload stands in it as its canonical text, so that no number is written another way."""
    return f"[{','.join(map(_json_object, new_runs))}]"


def _json_object(new: NewRun) -> str:
    columns = {
        "queue_name": new.queue_name,
        "spec_hash": new.spec.hash,
        "priority": new.priority,
        "run_after": None if new.run_after is None else new.run_after.isoformat(),
        "delay_seconds": new.delay_s,
        "max_attempts": new.max_attempts,
        "timeout_seconds": new.timeout_s,
        "unique_key": new.unique_key,
        "executor": new.executor,
        "atomic": new.atomic,
        "retry_base_seconds": new.retry_base_s,
        "retry_max_seconds": new.retry_max_s,
    }
    return f'{{"in_array":[{new.spec.canonical}],{json.dumps(columns, ensure_ascii=False)[1:]}'


def _copied(sender: Sender, new_runs: Sequence[NewRun]) -> Sequence[TaskRun] | None:
    """None: a COPY cannot be had on this connection, or not by this role."""
    connection = sender.psycopg_connection()
    if connection is None or connection.pgconn.pipeline_status != psycopg.pq.PipelineStatus.OFF:
        return None
    new_runs = tuple(new_runs)  # what is given back is made of them later
    seconds = sorted({each for new in new_runs for each in _seconds(new) if each is not None})
    with sender.all_or_nothing():
        reserved = sender.fetch("reserve_run_ids", {"runs": len(new_runs), "seconds": json.dumps(seconds)})
        if not reserved:
            return None
        (row,) = reserved
        ids = array("q", map(int, row.ids.split(",")))
        kept = dict(zip(seconds, map(float, json.loads(row.kept_seconds or "[]")), strict=True))
        with psycopg.Cursor(connection) as cursor, cursor.copy(statement("copy_runs")) as copy:
            for run_id, new in zip(ids, new_runs, strict=True):
                copy.write_row((run_id, _due(new, row.moment), *_copied_columns(new)))
    return _CopiedRuns(ids, new_runs, row.moment, connection.info.timezone, kept)


class _CopiedRuns(Sequence[TaskRun]):
    """The runs that a COPY has added, each made when it is looked at: most callers look at none, or at the ids."""

    def __init__(
        self,
        ids: Sequence[int],
        new_runs: Sequence[NewRun],
        moment: datetime,
        session_zone: tzinfo,
        kept: Mapping[float, float],
    ) -> None:
        """`moment`: when they were enqueued, as the connection gives times. `kept`: what four bytes keep of each
        number of seconds."""
        self._ids = ids
        self._new_runs = new_runs
        self._moment = moment
        self._session_zone = session_zone
        self._kept = kept

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, index: int) -> TaskRun: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[TaskRun]: ...

    def __getitem__(self, index: int | slice) -> TaskRun | Sequence[TaskRun]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        new = self._new_runs[index]
        timeout_s, retry_base_s, retry_max_s = (
            None if each is None else self._kept[each] for each in _seconds(new)
        )
        return added_run(
            new,
            run_id=self._ids[index],
            enqueued_at=self._moment,
            run_after=_as_read(_due(new, self._moment), self._moment, self._session_zone),
            timeout_seconds=timeout_s,
            retry_base_seconds=retry_base_s,
            retry_max_seconds=retry_max_s,
        )

    def __repr__(self) -> str:
        return f"<{len(self)} runs, {self._ids[0]} to {self._ids[-1]}>"


def _due(new: NewRun, moment: datetime) -> datetime | None:
    return new.run_after if new.delay_s is None else moment + timedelta(seconds=new.delay_s)


def _seconds(new: NewRun) -> tuple[float | None, ...]:
    return new.timeout_s, new.retry_base_s, new.retry_max_s


# As `copy_runs.sql` has them, behind the id and the time.
_copied_columns = attrgetter(
    "queue_name",
    "spec.canonical",
    "spec.hash",
    "priority",
    "max_attempts",
    "timeout_s",
    "executor",
    "atomic",
    "retry_base_s",
    "retry_max_s",
)


def _as_read(time: datetime | None, moment: datetime, session_zone: tzinfo) -> datetime | None:
    """In the zone in which this connection gives times, such as `moment`, or without one as it does."""
    if time is None or time.tzinfo is None:
        return time
    if moment.tzinfo is None:
        return time.astimezone(session_zone).replace(tzinfo=None)
    return time.astimezone(moment.tzinfo)
