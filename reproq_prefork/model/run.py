"""A run, and how its status may change: values and rules, no I/O."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from reproq_prefork.model.outcome import FailureKind
from reproq_prefork.model.stored_values import read_moment, texts_of

_scan_json = json.JSONDecoder().scan_once  # type: ignore[attr-defined]


class Status(enum.StrEnum):
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCESSFUL = "SUCCESSFUL"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


FINAL_STATUSES = frozenset({Status.SUCCESSFUL, Status.FAILED, Status.CANCELLED})

# All changes of status. A final status never changes: to run again is a new run (`replay_of`).
LEGAL_EDGES = frozenset(
    {
        (Status.PENDING, Status.RUNNING),  # claimed
        (Status.PENDING, Status.CANCELLED),
        (Status.RUNNING, Status.PENDING),  # to be retried, snoozed, handed back, or its holder died
        (Status.RUNNING, Status.SUCCESSFUL),
        (Status.RUNNING, Status.FAILED),
        (Status.RUNNING, Status.CANCELLED),
    }
)


OMITTED = "omitted"
"""The `kind` of the entry of `errors` that is not an attempt: it says how many are left out at its place."""


def omitted_entries(entry: object) -> int | None:
    """How many entries of `task_runs.errors` are left out at the place of `entry`; None: it is ordinary."""
    if not isinstance(entry, Mapping) or entry.get("kind") != OMITTED:
        return None
    omitted = entry.get("omitted")
    return omitted if isinstance(omitted, int) else 0


Token = tuple[int, int]
"""The `id` of a run and the number of its claim: a write that names both changes nothing of a later claim."""


class Place(NamedTuple):
    """The position of a run in its queue, by the claim order. `due`: as the server wrote it, to be sent back."""

    priority: int
    due: str
    id: int


class RunHistory(NamedTuple):
    """When a run was due, and which workers have claimed it. Without a started_at it has not started yet."""

    run_after: datetime | None
    enqueued_at: datetime | None
    started_at: datetime | None
    last_attempted_at: datetime | None
    worker_ids: tuple[str, ...]


class ClaimedRun(NamedTuple):
    """A run as its holder sees it. (`id`, `claim`) is the fencing token: every write names both.

    It is a tuple, with its fields in the order of `parts/claimed_columns.sql`, since about ten thousand are made
    in a second. The statement keeps every number within the bounds of `new_run`.
    """

    id: int
    claim: int
    payload: str | None  # JSON text; None if it was not read with the claim
    spec_hash: str
    task_path: str | None
    queue_name: str
    attempt: int  # 1 for the first
    max_attempts: int
    timeout_s: float | None  # None: the worker's own default
    executor: str | None = None  # fork or inline; None: the host's own
    atomic: bool = False
    retry_base_s: float | None = None  # None: the host's own
    retry_max_s: float | None = None
    priority: int = 0
    history_json: str = "[null, null, null, null, []]"  # as text: most tasks do not use it
    errors: str | None = None  # JSON text: the entries of the earlier attempts; None at the first attempt
    metadata: str | None = None  # JSON text

    @property
    def token(self) -> Token:
        return self.id, self.claim

    @property
    def place(self) -> Place:
        run_after, enqueued_at, *_ = _scan_json(self.history_json, 0)[0]
        return Place(self.priority, enqueued_at if run_after is None else run_after, self.id)

    @property
    def history(self) -> RunHistory:
        """Parsed again at each call."""
        run_after, enqueued_at, started_at, last_attempted_at, worker_ids = _scan_json(self.history_json, 0)[
            0
        ]
        return RunHistory(
            run_after and read_moment(run_after),
            enqueued_at and read_moment(enqueued_at),
            started_at and read_moment(started_at),
            last_attempted_at and read_moment(last_attempted_at),
            texts_of(worker_ids),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRun:
    """One row of `task_runs`, as `get_run` reads it. `created` is False if an enqueue met a held key.

    With more than 40 attempts, `errors` and `worker_ids` have the first 20 and the last 20. Between these,
    `errors` has an entry of the kind "omitted", with the number of entries left out. `attempts` counts them all.

    The defaults are those of a new row. The annotations say how a column is read (`store.run_rows`): `datetime` as
    a time, `Any` as JSON, others unchanged.
    """

    id: int
    queue_name: str
    payload: Any
    spec_hash: str
    task_path: str | None
    priority: int
    run_after: datetime | None
    status: Status = Status.PENDING
    attempts: int = 0
    max_attempts: int
    timeout_seconds: float | None
    claims: int = 0
    leased_by: str | None = None
    lease_expires_at: datetime | None = None
    worker_ids: tuple[str, ...] = ()
    result: Any = None
    errors: tuple[dict[str, Any], ...] = ()
    enqueued_at: datetime
    started_at: datetime | None = None
    last_attempted_at: datetime | None = None
    finished_at: datetime | None = None
    replay_of: int | None = None
    unique_key: str | None
    executor: str | None
    atomic: bool
    retry_base_seconds: float | None
    retry_max_seconds: float | None
    cancel_requested_at: datetime | None = None
    metadata: Any = None
    last_attempt: Any = None
    finish_due_at: datetime | None = None
    created: bool = field(default=True, compare=False)

    @property
    def is_finished(self) -> bool:
        return self.status in FINAL_STATUSES


class UnreadableRun(NamedTuple):
    """A run that was claimed and must not be executed. `run` lacks what cannot be read; `why` gives the reason."""

    run: ClaimedRun
    why: str


@dataclass(frozen=True, slots=True)
class LostWorker:
    """A dead worker, and what is known about the run that it executed.

    `started`: the (id, claim) of the run that it had started; None: none. `charge_all`: it is not known which runs
    had started, so the attempt of each counts. `refund`: it was killed to shut down, so no attempt counts. `kind`,
    `message`: the error entry for its runs. `unrecorded`: runs that it had started before, and whose ends it could
    not record.
    """

    worker_id: str
    started: tuple[int, int] | None
    charge_all: bool
    refund: bool
    kind: FailureKind
    message: str
    unrecorded: tuple[tuple[int, int], ...] = ()
