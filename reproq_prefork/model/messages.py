"""The messages between a master and its children. A steward also gets `run.LostWorker`."""

from __future__ import annotations

from dataclasses import dataclass

# --- a steward to its master ---


@dataclass(frozen=True, slots=True)
class WorkerReset:
    """The runs of this dead worker are reset."""

    worker_id: str


@dataclass(frozen=True, slots=True)
class QueuesDrained:
    """With `--drain`: nothing is left to do."""


# --- a master to a template ---


@dataclass(frozen=True, slots=True)
class WorkerPost:
    """The place of a worker fork. Sent to a template, it means: fork it."""

    generation: int
    slot: int
    incarnation: int
    worker_id: str


@dataclass(frozen=True, slots=True)
class WorkerExpected:
    """The master knows the worker that will become its child."""

    pid: int


# --- a template to its master ---


@dataclass(frozen=True, slots=True)
class TemplateLoaded:
    """The template has imported the application, and can fork workers."""


@dataclass(frozen=True, slots=True)
class TemplateUnfit:
    """The import of the application did something that does not survive a fork."""

    reason: str


@dataclass(frozen=True, slots=True)
class WorkerMade:
    """The worker exists. It starts when the master has said that it expects it."""

    post: WorkerPost
    pid: int


@dataclass(frozen=True, slots=True)
class WorkerNotMade:
    post: WorkerPost
    reason: str
