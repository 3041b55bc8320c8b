"""What can happen to a fleet: what the master has seen, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reproq_prefork.errors import ExitStatus
from reproq_prefork.fleet.state import Limits, Role


@dataclass(frozen=True, slots=True)
class Started:
    """The master's loop begins."""


@dataclass(frozen=True, slots=True)
class SignalCame:
    signum: int


@dataclass(frozen=True, slots=True)
class Forked:
    """`slot`: only of a worker."""

    role: Role
    generation: int
    pid: int
    slot: int | None = None


@dataclass(frozen=True, slots=True)
class ForkFailed:
    """`slot`: only of a worker."""

    role: Role
    generation: int
    reason: str
    slot: int | None = None


@dataclass(frozen=True, slots=True)
class TemplateReady:
    generation: int


@dataclass(frozen=True, slots=True)
class TemplateRefused:
    """The import of the application did something that does not survive a fork."""

    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class Exited:
    """A steward or a template exited. All its messages have already been reported."""

    role: Role
    generation: int
    how: str


@dataclass(frozen=True, slots=True)
class WorkerExited:
    """`left_in_order`: the worker itself says that it holds nothing. `started`, `unrecorded`: as in `LostWorker`;
    `torn`: these two are unknown. `registered`: its boot had ended.
    """

    slot: int
    worker_id: str
    status: int  # below 0: minus the number of the signal that ended it
    how: str
    left_in_order: bool
    started: tuple[int, int] | None
    torn: bool
    registered: bool = False
    unrecorded: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class CheckPassed:
    limits: Limits


@dataclass(frozen=True, slots=True)
class CheckFailed:
    problem: str
    exit_status: ExitStatus


@dataclass(frozen=True, slots=True)
class OrphansGone:
    """All processes are gone that dead workers' tasks, or dead templates, had started."""


@dataclass(frozen=True, slots=True)
class RunsReset:
    """The steward has reset the runs of one dead worker."""

    generation: int
    worker_id: str


@dataclass(frozen=True, slots=True)
class Drained:
    """`--drain`: nothing is left to do in the queues of the generation."""

    generation: int


@dataclass(frozen=True, slots=True)
class WorkerView:
    """What the scoreboard shows of a worker. A time is None if there is no such limit now.

    `seen_at`: its last sign of life. While it runs a task, it gives none.
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
    """What a look at the scoreboard found: workers by slot, and each steward's last heartbeat by generation."""

    workers: Mapping[int, WorkerView]
    heartbeats: Mapping[int, float]


Event = (
    Started
    | SignalCame
    | Forked
    | ForkFailed
    | TemplateReady
    | TemplateRefused
    | Exited
    | WorkerExited
    | CheckPassed
    | CheckFailed
    | OrphansGone
    | RunsReset
    | Drained
    | ScoreboardRead
)
