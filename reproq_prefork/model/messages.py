"""What a master and its children say to each other. To a steward also goes a `task_run.LostWorker`."""

from __future__ import annotations

from dataclasses import dataclass

from reproq_prefork.model.identity import ProcessIdentity

# --- a steward to its master ---


@dataclass(frozen=True, slots=True)
class WorkerReset:
    """What this dead worker held is put back."""

    worker_id: str


@dataclass(frozen=True, slots=True)
class QueuesDrained:
    """`--drain`, and nothing is left to do."""


# --- a master to a template ---


@dataclass(frozen=True, slots=True)
class WorkerPost:
    """Where a worker fork belongs. To a template: fork it."""

    slot: int
    incarnation: int
    steward: int  # its steward's place on the scoreboard
    worker_id: str
    master: ProcessIdentity
    life_fd: int


@dataclass(frozen=True, slots=True)
class WorkerExpected:
    """The master knows the worker that is to become its child."""

    pid: int


# --- a template to its master ---


@dataclass(frozen=True, slots=True)
class TemplateLoaded:
    """It has imported the application, and can fork workers."""


@dataclass(frozen=True, slots=True)
class TemplateUnfit:
    """What the application has done as it was imported does not survive a fork."""

    reason: str


@dataclass(frozen=True, slots=True)
class WorkerMade:
    """It is there, and starts once the master has said that it expects it."""

    slot: int
    incarnation: int
    pid: int


@dataclass(frozen=True, slots=True)
class WorkerNotMade:
    slot: int
    incarnation: int
    reason: str
