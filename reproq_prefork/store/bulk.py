"""Adds many runs at once: one INSERT for up to some thousands, or a COPY for more.

The INSERT has one parameter, a JSON array, so it is one statement for any number of rows. A COPY can neither
return what it has inserted nor skip a key that is held. So its ids are drawn before, and runs with unique keys
are never copied. They are inserted in the order of their keys, whatever the order of the list.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, tzinfo
from operator import attrgetter
from typing import overload

import psycopg

from reproq_prefork.model.new_run import NewRun
from reproq_prefork.model.run import TaskRun
from reproq_prefork.store.run_rows import added_run, inserted_run, task_run
from reproq_prefork.store.script import Ask, Copy, Script, Whole
from reproq_prefork.store.sender import Session
from reproq_prefork.store.unique_keys import MAX_KEY_TRIES, KeyChangesHands

# Measured (a local server, fsync on): the INSERT is faster up to 200 runs. A COPY takes 20 % less time at 500,
# and 40 % less from 2,000 on. But it takes four more round trips, so it wins only if it saves more time than
# they cost.
COPY_FROM = 500
BATCH_RUNS = 5_000
BATCH_BYTES = 8 << 20  # of payloads; the last one may exceed it. The server holds a few copies of a batch


def enqueue_many(session: Session, new_runs: Sequence[NewRun]) -> Script[Sequence[TaskRun]]:
    """As `runs.enqueue_many`."""
    has_keys = any(new.unique_key is not None for new in new_runs)
    if len(new_runs) > COPY_FROM and not has_keys:
        copied = yield from _copied(session, new_runs)
        if copied is not None:
            return copied
    places, first_of = _in_order_of_keys(new_runs) if has_keys else (range(len(new_runs)), {})
    batches = list(_batches(new_runs, places))
    runs = yield from _added(session, new_runs, batches, in_transaction=has_keys or len(batches) > 1)
    return [
        runs[place] if place in runs else replace(runs[first_of[new.unique_key or ""]], created=False)
        for place, new in enumerate(new_runs)
    ]


def _in_order_of_keys(new_runs: Sequence[NewRun]) -> tuple[Sequence[int], Mapping[str, int]]:
    """The positions in `new_runs` in the order of the insert, and the first position of each key.

    The insert of a key waits for another transaction that inserts the same key. All callers insert in the same
    order (that of the code points), so all wait in one direction, and no two wait for each other. Runs with
    keys change places only among themselves: if a list has its keys in order, or has no keys, its runs get
    their ids in the order of the list.
    """
    first_of: dict[str, int] = {}
    for place, new in enumerate(new_runs):
        if new.unique_key is not None:
            first_of.setdefault(new.unique_key, place)
    sorted_places = iter([first_of[key] for key in sorted(first_of)])
    firsts = set(first_of.values())
    return [
        next(sorted_places) if place in firsts else place
        for place, new in enumerate(new_runs)
        if place in firsts or new.unique_key is None
    ], first_of


def _batches(new_runs: Sequence[NewRun], places: Sequence[int]) -> Iterator[Sequence[int]]:
    batch: list[int] = []
    size = 0
    for place in places:
        batch.append(place)
        size += len(new_runs[place].spec.canonical)
        if len(batch) >= BATCH_RUNS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


class _KeyWasGivenBack(Exception):
    """A key was held when its run was inserted, and is free now."""

    def __init__(self, key: str) -> None:
        self.key = key


def _added(
    session: Session, new_runs: Sequence[NewRun], batches: Sequence[Sequence[int]], *, in_transaction: bool
) -> Script[Mapping[int, TaskRun]]:
    """The runs at these positions: the new ones, and the holders of keys that were held.

    If a key was given back meanwhile, all are inserted again, because that key comes before keys that are held
    now.
    """
    key = ""
    for _ in range(MAX_KEY_TRIES):
        inserted = _inserted(session, new_runs, batches)
        try:
            runs: Mapping[int, TaskRun] = (yield Whole(inserted)) if in_transaction else (yield from inserted)
            return runs
        except _KeyWasGivenBack as given_back:
            key = given_back.key
    raise KeyChangesHands(key)


def _inserted(
    session: Session, new_runs: Sequence[NewRun], batches: Sequence[Sequence[int]]
) -> Script[Mapping[int, TaskRun]]:
    """One try of `_added`. Raises _KeyWasGivenBack."""
    runs: dict[int, TaskRun] = {}
    for batch in batches:
        runs |= yield from _insert(new_runs, batch)
    for batch in batches:
        runs |= yield from _holders(session, new_runs, [place for place in batch if place not in runs])
    return runs


def _insert(new_runs: Sequence[NewRun], places: Sequence[int]) -> Script[dict[int, TaskRun]]:
    """The inserted runs. Ids grow with the positions. If a run is missing, its key is held."""
    text = _as_json(new_runs[place] for place in places)
    answer = yield Ask("enqueue_runs", {"runs": text})
    rows = iter(sorted(answer, key=lambda row: int(row.id)))
    row = next(rows, None)
    inserted: dict[int, TaskRun] = {}
    for place in places:
        if row is not None and row.unique_key == new_runs[place].unique_key:
            inserted[place] = inserted_run(new_runs[place], row)
            row = next(rows, None)
    return inserted


def _holders(
    session: Session, new_runs: Sequence[NewRun], places: Sequence[int]
) -> Script[dict[int, TaskRun]]:
    """The runs that hold the keys of the runs at `places`. Raises _KeyWasGivenBack."""
    if not places:
        return {}
    keys = {new_runs[place].unique_key or "": place for place in places}
    rows = yield Ask("runs_that_hold_keys", {"keys": json.dumps(list(keys))})
    holders = {keys[row.unique_key]: task_run(row, session.zone, created=False) for row in rows}
    for key, place in keys.items():
        if place not in holders:
            raise _KeyWasGivenBack(key)
    return holders


def _as_json(new_runs: Iterable[NewRun]) -> str:
    """A JSON array. Each payload is in it as canonical text, so no number changes its form."""
    return f"[{','.join(map(_json_object, new_runs))}]"


def _json_object(new: NewRun) -> str:
    columns = {
        **new.columns(),
        "run_after": None if new.run_after is None else new.run_after.isoformat(),
        "delay_seconds": new.delay_s,
    }
    return f'{{"in_array":[{new.spec.canonical}],{json.dumps(columns, ensure_ascii=False)[1:]}'


def _copied(session: Session, new_runs: Sequence[NewRun]) -> Script[Sequence[TaskRun] | None]:
    """None: this connection cannot send a COPY, or this role may not."""
    connection = session.psycopg_connection()
    if connection is None or connection.pgconn.pipeline_status != psycopg.pq.PipelineStatus.OFF:
        return None
    # A tuple: the results are made from them later.
    copied: Sequence[TaskRun] | None = yield Whole(_copy(connection.info.timezone, tuple(new_runs)))
    return copied


def _copy(session_zone: tzinfo, new_runs: Sequence[NewRun]) -> Script[Sequence[TaskRun] | None]:
    seconds = sorted({each for new in new_runs for each in _seconds(new) if each is not None})
    reserved = yield Ask("reserve_run_ids", {"runs": len(new_runs), "seconds": json.dumps(seconds)})
    if not reserved:
        return None
    (row,) = reserved
    ids = array("q", map(int, row.ids.split(",")))
    kept = dict(zip(seconds, map(float, json.loads(row.kept_seconds or "[]")), strict=True))
    yield Copy(
        (run_id, _due(new, row.moment), *_copied_columns(new))
        for run_id, new in zip(ids, new_runs, strict=True)
    )
    return _CopiedRuns(ids, new_runs, row.moment, session_zone, kept)


class _CopiedRuns(Sequence[TaskRun]):
    """The runs that a COPY has added. Each is made when it is read: most callers read none, or only the ids."""

    def __init__(
        self,
        ids: Sequence[int],
        new_runs: Sequence[NewRun],
        moment: datetime,
        session_zone: tzinfo,
        kept: Mapping[float, float],
    ) -> None:
        """`moment`: when they were enqueued, in the form of this connection. `kept`: each number of seconds as
        four bytes store it."""
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


# In the order of `copy_runs.sql`, after the id and the time.
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
    """In the zone in which this connection returns times such as `moment`; or without a zone, if it does so."""
    if time is None or time.tzinfo is None:
        return time
    if moment.tzinfo is None:
        return time.astimezone(session_zone).replace(tzinfo=None)
    return time.astimezone(moment.tzinfo)
