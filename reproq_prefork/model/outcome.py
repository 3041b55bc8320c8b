"""What happened to an attempt: its outcome, and what it used."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple


class FailureKind(enum.StrEnum):
    """Why an attempt failed: `kind` in an entry of `task_runs.errors`."""

    FAILED = "failed"  # the task failed: an exit status other than 0, or an exception
    KILLED = "killed"  # a signal ended its process
    TIMEOUT = "timeout"
    UNUSABLE_OUTPUT = "unusable_output"  # not JSON, JSON that PostgreSQL cannot hold, or too much
    NOT_STARTED = "not_started"  # its program could not be started
    UNREADABLE = "unreadable"  # the row itself could not be read
    REFUSED = "refused"  # the database accepted no other end of the run
    WORKER_LOST = "worker_lost"
    LEASE_EXPIRED = "lease_expired"
    SHUTDOWN = "shutdown"
    CANCELLED = "cancelled"
    NOT_ALLOWED = "not_allowed"  # the payload names something that is not a task allowed here


@dataclass(frozen=True, slots=True)
class Success:
    """The attempt returned a result: JSON text that PostgreSQL can store."""

    result: str


@dataclass(frozen=True, slots=True)
class Failure:
    """The attempt failed. `retry` False: another attempt cannot help."""

    kind: FailureKind
    message: str
    exception: str | None = None
    traceback: str | None = None
    stderr: str | None = None
    retry: bool = True
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The worker ended the attempt for its own reasons (a shutdown). It is nobody's failure."""

    reason: str


@dataclass(frozen=True, slots=True)
class Abandoned:
    """The attempt was ended because its lease had ended. We may no longer write the row."""

    reason: str


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Somebody cancelled the run, and so the attempt has ended."""

    reason: str


@dataclass(frozen=True, slots=True)
class Completed:
    """The attempt has recorded its own success, in the transaction of its effects (`atomic`)."""


@dataclass(frozen=True, slots=True)
class Snoozed:
    """The task had nothing to do yet. It runs again `after_s` later, as if it had not been claimed."""

    after_s: float
    reason: str = ""


Outcome = Success | Failure | Interrupted | Abandoned | Cancelled | Completed | Snoozed


class Usage(NamedTuple):
    """How an attempt ended, and what it used."""

    exit: str  # "exit status 0", "killed by signal 9 (SIGKILL)"; for an inline task "returned" or "raised"
    cpu_s: float  # user and system time, including the processes that it waited for
    peak_rss_kib: int
    output: str | None = None  # the tail of its stdout and stderr, if that is not in the outcome


class AttemptReport(NamedTuple):
    """What an executor returns. `announced`: the task's process has announced the end to the application."""

    outcome: Outcome
    usage: Usage | None = None
    announced: bool = False
