"""What happened to an attempt: its outcome, and what it used."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple


class FailureKind(enum.StrEnum):
    """Why an attempt failed: `kind` in an entry of `task_runs.errors`."""

    FAILED = "failed"  # the task said so: an exit status other than 0
    KILLED = "killed"  # a signal ended its process
    TIMEOUT = "timeout"
    UNUSABLE_OUTPUT = "unusable_output"  # not JSON, or JSON that PostgreSQL cannot hold, or too much of it
    NOT_STARTED = "not_started"  # its program could not be started
    UNREADABLE = "unreadable"  # the row itself could not be read
    REFUSED = "refused"  # the database took no other end of it
    WORKER_LOST = "worker_lost"
    LEASE_EXPIRED = "lease_expired"
    SHUTDOWN = "shutdown"
    CANCELLED = "cancelled"
    NOT_ALLOWED = "not_allowed"  # the payload names what is no task that may run here


@dataclass(frozen=True, slots=True)
class Success:
    """The attempt gave a result: JSON text that was checked to be storable."""

    result: str


@dataclass(frozen=True, slots=True)
class Failure:
    """The attempt failed. `retry` False: no further attempt can help."""

    kind: FailureKind
    message: str
    exception: str | None = None
    traceback: str | None = None
    stderr: str | None = None
    retry: bool = True
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The worker ended the attempt for its own reasons (a shutdown): nobody's failure."""

    reason: str


@dataclass(frozen=True, slots=True)
class Abandoned:
    """The attempt was ended because its lease was: the row is no longer ours to write."""

    reason: str


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Somebody cancelled the run, and the attempt has ended for it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Completed:
    """The attempt has recorded its success itself, in the transaction of its own effects (`atomic`)."""


@dataclass(frozen=True, slots=True)
class Snoozed:
    """The task had nothing to do yet: it is to run again `after_s` later, as if it had not been claimed."""

    after_s: float
    reason: str = ""


Outcome = Success | Failure | Interrupted | Abandoned | Cancelled | Completed | Snoozed


class Usage(NamedTuple):
    """How an attempt ended, and what it used."""

    exit: str  # "exit status 0", "killed by signal 9 (SIGKILL)"; of an inline task "returned" or "raised"
    cpu_s: float  # user and system time, of the processes it waited for too
    peak_rss_kib: int
    output: str | None = (
        None  # the tail of what it wrote to stdout and stderr, where that is not in the outcome
    )


class AttemptReport(NamedTuple):
    """What an executor returns. `announced`: the task's process has announced the end to the application."""

    outcome: Outcome
    usage: Usage | None = None
    announced: bool = False
