"""Finds the newest runs that match, and reads what `list` prints of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reproq_prefork.model.run import Status
from reproq_prefork.store.sender import Fetch
from reproq_prefork.store.unfinished_runs import like_pattern

SCANNED_RUNS = 20_000  # in one statement
LIVE_RUNS = 10_000
MAX_MESSAGE_CHARS = 500

_ABOVE_ALL_IDS = 2**63 - 1
_LIVE = frozenset({Status.PENDING, Status.RUNNING})


@dataclass(frozen=True, slots=True)
class Wanted:
    """The runs that match all fields. A field that is None, and no status at all, match every run.

    `task` is a pattern as in `Selection`. The ages are of the time when a run was enqueued. `error` is a text in
    one of its errors, in upper or lower case.
    """

    statuses: frozenset[Status] = frozenset()
    queues: Sequence[str] | None = None
    task: str | None = None
    since_s: float | None = None
    older_than_s: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ListedRun:
    """`times` are texts as the server writes them, or None. If there is no error, its three parts are None."""

    id: int
    status: str
    queue_name: str
    task_path: str | None
    priority: int
    attempts: int
    max_attempts: int
    unique_key: str | None
    replay_of: int | None
    enqueued_s: float  # ago; may be infinite
    times: Mapping[str, str | None]
    error_kind: str | None
    error_exception: str | None
    error_message: str | None


def list_runs(ask: Fetch, wanted: Wanted, limit: int) -> list[ListedRun]:
    """The newest `limit` runs that match, the newest first."""
    filters = {
        "statuses": sorted(wanted.statuses) or None,
        "queues": None if wanted.queues is None else list(wanted.queues),
        "task_like": None if wanted.task is None else like_pattern(wanted.task),
        "since_seconds": wanted.since_s,
        "older_than_seconds": wanted.older_than_s,
        "error": wanted.error,
    }
    ids = _live_ids(ask, wanted, filters, limit) if wanted.statuses and wanted.statuses <= _LIVE else None
    if ids is None:
        ids = []
        for batch in _batches(ask, filters, limit):
            ids += batch
            if len(ids) >= limit:
                break
    rows = ask("listed_runs", {"ids": ids[:limit], "max_message_chars": MAX_MESSAGE_CHARS}) if ids else ()
    return [_listed(row) for row in rows]


def _live_ids(ask: Fetch, wanted: Wanted, filters: Mapping[str, Any], limit: int) -> list[int] | None:
    """None: there are too many of them."""
    parameters = {
        "pending": Status.PENDING in wanted.statuses,
        "running": Status.RUNNING in wanted.statuses,
        "max_scanned": LIVE_RUNS,
        "max_runs": limit,
    }
    (found,) = ask("list_live", {**filters, **parameters})
    ids: list[int] | None = found.ids
    return ids


def _batches(ask: Fetch, filters: Mapping[str, Any], limit: int) -> Iterator[Sequence[int]]:
    before_id = _ABOVE_ALL_IDS
    while True:
        parameters = {"before_id": before_id, "max_scanned": SCANNED_RUNS, "max_runs": limit}
        (batch,) = ask("list_batch", {**filters, **parameters})
        yield batch.ids
        if batch.is_last:
            return
        before_id = batch.last_id


def _listed(row: Any) -> ListedRun:
    values = row._asdict()
    enqueued_s, times = values.pop("enqueued_seconds"), json.loads(values.pop("times"))
    return ListedRun(**values, enqueued_s=enqueued_s, times=times)
