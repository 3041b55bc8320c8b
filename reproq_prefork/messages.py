"""What a steward says to its master. The other way goes a `task.LostWorker`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WorkerReset:
    """What this dead worker held is put back."""

    worker_id: str


@dataclass(frozen=True, slots=True)
class QueuesDrained:
    """`--drain`, and nothing is left to do."""
