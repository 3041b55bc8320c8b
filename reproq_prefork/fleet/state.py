"""What a fleet consists of: plain data for `fleet.decide`.

Times are seconds of CLOCK_BOOTTIME.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from reproq_prefork.errors import ExitStatus
from reproq_prefork.model.outcome import FailureKind
from reproq_prefork.model.run import LostWorker

RESPAWN_BURST = 50.0  # so many dead workers are replaced at once; then `boots.RESPAWNS_A_SECOND`


class Role(enum.StrEnum):
    """What a child of the master is. The value is the word for it in log lines and in process titles."""

    TEMPLATE = "template"
    WORKER = "worker"
    STEWARD = "steward"


class Phase(enum.IntEnum):
    """The phase of the whole fleet. Phases only advance."""

    RUNNING = 0
    DRAINING = 1
    STOPPING = 2


class Reload(enum.Enum):
    NONE = enum.auto()
    CHECKING = enum.auto()  # a child reads and checks the settings
    STARTING = enum.auto()  # the next generation boots beside the current one


@dataclass(frozen=True, slots=True)
class FleetWorker:
    slot: int
    generation: int
    incarnation: int
    pid: int = 0  # 0: it is being forked
    forked_at: float = 0.0  # while it is being forked: when that was decided
    ready: bool = False  # it has registered once
    connecting: bool = False  # not ready yet: it has booted, and waits for a connection to the database
    told: int = 0  # the last signal it was sent; 0: none
    told_at: float = 0.0
    killed_as: FailureKind | None = None  # why the master killed it


@dataclass(frozen=True, slots=True)
class FleetSteward:
    pid: int = 0  # 0: none
    being_forked: bool = False
    fork_at: float = 0.0  # it is not forked before this time
    forked_at: float = 0.0
    told: int = 0
    told_at: float = 0.0


@dataclass(frozen=True, slots=True)
class FleetTemplate:
    """The process that has imported the application and forks the workers."""

    pid: int = 0  # 0: none
    being_forked: bool = False
    forked_at: float = 0.0
    ready: bool = False
    answered_at: float = 0.0  # when it became ready, or last forked a worker
    unfit: bool = False  # the application does not survive a fork
    told: int = 0

    @property
    def can_fork(self) -> bool:
        return self.ready and not self.told


@dataclass(frozen=True, slots=True)
class Limits:
    """What the fleet needs to know from the settings of a generation."""

    workers: int
    boot_timeout_s: float
    shutdown_timeout_s: float
    fence_grace_s: float  # less than the margin between a worker's own limit and the end of its lease
    has_template: bool = False
    connect_s: float = 0.0  # how long a worker may take to connect, in addition to `boot_timeout_s`
    serves: str = ""  # for the log: what its workers serve, and how


@dataclass(frozen=True, slots=True)
class Generation:
    """What one reading of the settings started: a steward, perhaps a template, and the workers."""

    number: int
    limits: Limits
    target: int  # how many workers
    steward: FleetSteward = field(default_factory=FleetSteward)
    template: FleetTemplate | None = None  # None: the master forks the workers
    was_ready: bool = False
    lacks_workers: bool = (
        False  # it became ready without some workers, which wait for a connection to the database
    )
    draining: bool = False
    boot_failures: int = 0  # in a row; failures of workers that were forked together count as one
    boot_failed_at: float = 0.0
    fork_at: float = 0.0  # no worker and no template is forked before this time
    respawn_credit: float = RESPAWN_BURST
    credited_at: float = 0.0
    # Dead workers whose runs are not reset yet. They are here until the orphans of their tasks are gone, ...
    lost_with_orphans: tuple[LostWorker, ...] = ()
    # ... and then here until the steward has answered. A new steward is told again.
    lost: tuple[LostWorker, ...] = ()
    left_behind: bool = False  # a template is dead, but processes that it started may still be alive
    empty_since: float | None = None  # since when it is draining without any workers


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
    workers: Mapping[int, FleetWorker] = field(default_factory=dict)  # by slot
    generations_made: int = 0
    incarnations_made: int = 0
    decided_at: float | None = None
    woke_at: float = 0.0  # until then the master itself was stopped, so what looks late may not be late

    @property
    def current(self) -> Generation | None:
        """The newest generation that was ready. If none was ready yet, the first."""
        staying = [generation for generation in self.generations.values() if not generation.draining]
        ready = [generation for generation in staying if generation.was_ready]
        return max(ready, key=_number, default=None) or min(staying, key=_number, default=None)

    @property
    def awaits_orphans(self) -> bool:
        return any(g.lost_with_orphans or g.left_behind for g in self.generations.values())

    def workers_of(self, generation: int) -> list[FleetWorker]:
        return [worker for worker in self.workers.values() if worker.generation == generation]


def _number(generation: Generation) -> int:
    return generation.number
