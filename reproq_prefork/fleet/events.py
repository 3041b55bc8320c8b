"""What can happen to a fleet: what the master has seen, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reproq_prefork.errors import ExitStatus
from reproq_prefork.fleet.state import Limits


@dataclass(frozen=True, slots=True)
class Started:
    """The master's loop begins."""


@dataclass(frozen=True, slots=True)
class SignalCame:
    signum: int


@dataclass(frozen=True, slots=True)
class WorkerForked:
    slot: int
    pid: int


@dataclass(frozen=True, slots=True)
class StewardForked:
    generation: int
    pid: int


@dataclass(frozen=True, slots=True)
class TemplateForked:
    generation: int
    pid: int


@dataclass(frozen=True, slots=True)
class TemplateNotForked:
    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class TemplateReady:
    generation: int


@dataclass(frozen=True, slots=True)
class TemplateRefused:
    """What the application has done as it was imported does not survive a fork."""

    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class TemplateExited:
    """It makes no worker any more: those that it has made are known."""

    generation: int
    how: str


@dataclass(frozen=True, slots=True)
class ForkFailed:
    """No process could be had; `slot` None: for the steward."""

    generation: int
    slot: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class WorkerExited:
    """`left_in_order`: it says itself that it holds nothing. `started`, `unrecorded` as in `LostWorker`; `torn`:
    unknown. `registered`: its boot was over.
    """

    slot: int
    worker_id: str
    status: int  # below 0: minus the signal that ended it
    how: str
    left_in_order: bool
    started: tuple[int, int] | None
    torn: bool
    registered: bool = False
    unrecorded: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class StewardExited:
    generation: int
    how: str


@dataclass(frozen=True, slots=True)
class CheckPassed:
    limits: Limits


@dataclass(frozen=True, slots=True)
class CheckFailed:
    problem: str
    exit_status: ExitStatus


@dataclass(frozen=True, slots=True)
class OrphansGone:
    """Nothing is left that a dead worker's task, or a dead template, has started."""


@dataclass(frozen=True, slots=True)
class RunsReset:
    """The steward's answer about one dead worker."""

    generation: int
    worker_id: str


@dataclass(frozen=True, slots=True)
class Drained:
    """`--drain`: the queues of the generation have nothing left to do."""

    generation: int


@dataclass(frozen=True, slots=True)
class WorkerView:
    """What the scoreboard shows of a worker fork. Times are None where there is no such limit now.

    `seen_at`: its last sign of life, of which it gives none while it runs a task.
    """

    incarnation: int
    booting: bool
    registered: bool
    deadline_at: float | None
    lease_ends_at: float | None
    seen_at: float | None = None
    connecting: bool = False  # it has booted, and waits for a connection to the database


@dataclass(frozen=True, slots=True)
class ScoreboardRead:
    """A look at the scoreboard: workers by slot, and the time of each steward's heartbeat by generation."""

    workers: Mapping[int, WorkerView]
    heartbeats: Mapping[int, float]


Event = (
    Started
    | SignalCame
    | WorkerForked
    | StewardForked
    | TemplateForked
    | TemplateNotForked
    | TemplateReady
    | TemplateRefused
    | TemplateExited
    | ForkFailed
    | WorkerExited
    | StewardExited
    | CheckPassed
    | CheckFailed
    | OrphansGone
    | RunsReset
    | Drained
    | ScoreboardRead
)
