"""What a fleet consists of, what can happen to it, and what can be done: plain data for `fleet.decide`.

Times are seconds of CLOCK_BOOTTIME.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from reproq_prefork.errors import ExitStatus
from reproq_prefork.model.outcome import FailureKind
from reproq_prefork.model.run import LostWorker
from reproq_prefork.text.log import LogLevel

RESPAWN_BURST = 50.0  # deaths that are replaced at once; then `fleet_boots.RESPAWNS_A_SECOND`


class Phase(enum.IntEnum):
    """Of the whole fleet; phases only advance."""

    RUNNING = 0
    DRAINING = 1
    STOPPING = 2


class Reload(enum.Enum):
    NONE = enum.auto()
    CHECKING = enum.auto()  # a child reads and checks the settings
    STARTING = enum.auto()  # the next generation boots beside the current one


@dataclass(frozen=True, slots=True)
class Worker:
    slot: int
    generation: int
    incarnation: int
    pid: int = 0  # 0: being forked
    forked_at: float = 0.0  # being forked: when that was decided
    ready: bool = False  # it has registered once
    connecting: bool = False  # not ready: it has booted, and waits for a connection to the database
    told: int = 0  # the last signal it was sent; 0: none
    told_at: float = 0.0
    killed_as: FailureKind | None = None  # why the master killed it


@dataclass(frozen=True, slots=True)
class Steward:
    pid: int = 0  # 0: none
    being_forked: bool = False
    fork_at: float = 0.0  # not before
    forked_at: float = 0.0
    told: int = 0
    told_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Template:
    """It has imported the application, and forks the workers."""

    pid: int = 0  # 0: none
    being_forked: bool = False
    forked_at: float = 0.0
    ready: bool = False
    answered_at: float = 0.0  # when it was ready, or last made a worker
    unfit: bool = False  # the application does not survive a fork
    told: int = 0

    @property
    def can_fork(self) -> bool:
        return self.ready and not self.told


@dataclass(frozen=True, slots=True)
class Limits:
    """What the fleet needs to know of a generation's settings."""

    workers: int
    boot_timeout_s: float
    shutdown_timeout_s: float
    fence_grace_s: float  # less than the margin between a worker's fence and the end of its lease
    has_template: bool = False
    connect_s: float = 0.0  # what a worker may take to connect, beside `boot_timeout_s`


@dataclass(frozen=True, slots=True)
class Generation:
    """What one reading of the settings started: a steward, perhaps a template, and the workers."""

    number: int
    limits: Limits
    target: int  # how many workers
    steward: Steward = field(default_factory=Steward)
    template: Template | None = None  # None: the master forks the workers
    was_ready: bool = False
    lacks_workers: bool = False  # it was ready without those that wait for a connection to the database
    draining: bool = False
    boot_failures: int = 0  # in a row; those of workers that were forked together are one
    boot_failed_at: float = 0.0
    fork_at: float = 0.0  # no worker and no template is forked before
    respawn_credit: float = RESPAWN_BURST
    credited_at: float = 0.0
    # Dead workers whose runs are not reset yet: first until the orphans of their tasks are gone, ...
    bereaved: tuple[LostWorker, ...] = ()
    # ... then until the steward has answered; a new steward is told again.
    lost: tuple[LostWorker, ...] = ()
    left_behind: bool = False  # a template is dead, and what it has started may not be
    empty_since: float | None = None  # it is draining and has no workers left


@dataclass(frozen=True, slots=True)
class Fleet:
    max_slots: int
    max_generations: int
    phase: Phase = Phase.RUNNING
    phase_since: float = 0.0
    exit_status: ExitStatus = ExitStatus.OK
    interrupts: int = 0
    quiet: bool = False
    reload: Reload = Reload.NONE
    reload_again: bool = False
    checking: bool = False
    generations: Mapping[int, Generation] = field(default_factory=dict)
    workers: Mapping[int, Worker] = field(default_factory=dict)  # by slot
    generations_made: int = 0
    incarnations_made: int = 0
    decided_at: float | None = None
    woke_at: float = 0.0  # the master itself was stopped until then: what looks late may not be

    @property
    def current(self) -> Generation | None:
        """The newest generation that was ready; before there is one, the first."""
        staying = [generation for generation in self.generations.values() if not generation.draining]
        ready = [generation for generation in staying if generation.was_ready]
        return max(ready, key=_number, default=None) or min(staying, key=_number, default=None)

    @property
    def awaits_orphans(self) -> bool:
        return any(g.bereaved or g.left_behind for g in self.generations.values())

    def workers_of(self, generation: int) -> list[Worker]:
        return [worker for worker in self.workers.values() if worker.generation == generation]


def _number(generation: Generation) -> int:
    return generation.number


# --- events ---


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
class Look:
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
    | Look
)


# --- actions ---


@dataclass(frozen=True, slots=True)
class StartCheck:
    """Read and check the settings in a child; CheckPassed or CheckFailed follows."""


@dataclass(frozen=True, slots=True)
class AbandonCheck:
    """Nobody waits for the check any more."""


@dataclass(frozen=True, slots=True)
class AdoptSettings:
    """The settings that were checked last are this generation's."""

    generation: int


@dataclass(frozen=True, slots=True)
class ForkWorker:
    generation: int
    slot: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class RequestWorker:
    """The template is to fork it. WorkerForked, ForkFailed or TemplateExited follows, some time."""

    generation: int
    slot: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class ForkTemplate:
    generation: int


@dataclass(frozen=True, slots=True)
class ForkSteward:
    generation: int


@dataclass(frozen=True, slots=True)
class SendSignal:
    pid: int
    signum: int


@dataclass(frozen=True, slots=True)
class TellSteward:
    generation: int
    lost: LostWorker


@dataclass(frozen=True, slots=True)
class ShowQuiet:
    quiet: bool


@dataclass(frozen=True, slots=True)
class WakeWorkers:
    pass


@dataclass(frozen=True, slots=True)
class DumpState:
    pass


@dataclass(frozen=True, slots=True)
class NotifySystemd:
    state: str


@dataclass(frozen=True, slots=True)
class WriteLog:
    level: LogLevel
    message: str


@dataclass(frozen=True, slots=True)
class Exit:
    status: ExitStatus


Action = (
    StartCheck
    | AbandonCheck
    | AdoptSettings
    | ForkWorker
    | RequestWorker
    | ForkTemplate
    | ForkSteward
    | SendSignal
    | TellSteward
    | ShowQuiet
    | WakeWorkers
    | DumpState
    | NotifySystemd
    | WriteLog
    | Exit
)
