"""A world without processes for `fleet.decide`: children that boot, obey, hang and die, and a clock of its own.

It carries out the actions as the master does, and refuses those that make no sense.
"""

from __future__ import annotations

import signal
from collections import deque
from dataclasses import dataclass, field

from reproq_prefork.errors import ExitStatus
from reproq_prefork.fleet import decide
from reproq_prefork.fleet_state import (
    AbandonCheck,
    Action,
    AdoptSettings,
    CheckFailed,
    CheckPassed,
    Event,
    Exit,
    Fleet,
    ForkFailed,
    ForkSteward,
    ForkWorker,
    Limits,
    Look,
    NotifySystemd,
    OrphansGone,
    Phase,
    RunsReset,
    SendSignal,
    SignalCame,
    StartCheck,
    Started,
    StewardExited,
    StewardForked,
    TellSteward,
    WorkerExited,
    WorkerForked,
    WorkerView,
    WriteLog,
)
from reproq_prefork.task_run import LostWorker

TICK_S = 0.25
BOOT_TIMEOUT_S = 60.0
SHUTDOWN_TIMEOUT_S = 25.0
FENCE_GRACE_S = 2.5
FIRST_PID = 100


def limits(workers: int, *, shutdown_timeout_s: float = SHUTDOWN_TIMEOUT_S) -> Limits:
    return Limits(workers, BOOT_TIMEOUT_S, shutdown_timeout_s, FENCE_GRACE_S)


@dataclass(slots=True)
class Child:
    pid: int
    generation: int
    slot: int | None = None  # None: a steward
    incarnation: int = 0
    forked_at: float = 0.0
    obeys: bool = True
    boots: bool = True
    booting: bool = True
    registered: bool = False
    deadline_at: float | None = None
    lease_ends_at: float | None = None
    seen_at: float | None = None  # None: it gives signs of life
    started: tuple[int, int] | None = None
    frozen: bool = False  # a steward that shows no life and answers nothing
    signals: list[int] = field(default_factory=list)
    told: list[LostWorker] = field(default_factory=list)

    @property
    def worker_id(self) -> str:
        return f"worker-{self.incarnation}"


class World:
    """Its switches say how children behave that are forked from then on; `tick` lets a moment pass."""

    def __init__(self, *, slots: int = 8, generations: int = 4) -> None:
        self.fleet = Fleet(max_slots=slots, max_generations=generations)
        self.now = 1_000.0
        self.children: dict[int, Child] = {}
        self.actions: list[Action] = []
        self.fork_times: list[float] = []
        self.checking = False
        self.exit_status: ExitStatus | None = None
        self.workers_boot = True
        self.workers_obey = True
        self.forks_fail = False
        self.orphans_die = True
        self.database_is_up = True
        self.stewards_are_frozen = False
        self.died: set[str] = set()  # every worker that did not leave in order, by id
        self.lost: dict[str, LostWorker] = {}  # what the fleet made of it
        self.reset: set[str] = set()
        self._pids = FIRST_PID

    # --- what a test looks at ---

    @property
    def workers(self) -> list[Child]:
        return sorted((c for c in self.children.values() if c.slot is not None), key=lambda c: c.slot or 0)

    @property
    def stewards(self) -> list[Child]:
        return [child for child in self.children.values() if child.slot is None]

    def workers_of(self, generation: int) -> list[Child]:
        return [child for child in self.workers if child.generation == generation]

    # Methods, not attributes: a type checker takes an attribute to be still what was asserted of it before.

    def goes_on(self) -> bool:
        return self.exit_status is None

    def is_checking(self) -> bool:
        return self.checking

    def phase(self) -> Phase:
        return self.fleet.phase

    def logged(self, words: str) -> bool:
        return any(isinstance(a, WriteLog) and words in a.message for a in self.actions)

    @property
    def told_systemd(self) -> list[str]:
        return [action.state for action in self.actions if isinstance(action, NotifySystemd)]

    def count(self, kind: type[Action]) -> int:
        return sum(isinstance(action, kind) for action in self.actions)

    # --- what happens ---

    def feed(self, event: Event) -> None:
        events = deque([event])
        while events and self.exit_status is None:
            before = self.fleet
            self.fleet, actions = decide(self.fleet, events.popleft(), self.now)
            assert self.fleet.phase >= before.phase, "a phase went back"
            for action in actions:
                answer = self._act(action)
                if answer is not None:
                    events.append(answer)

    def start(self, workers: int) -> None:
        """From nothing to a fleet whose workers are ready."""
        self.feed(Started())
        self.pass_check(workers)
        self.tick()
        self.tick()

    def signal(self, *signums: int) -> None:
        for signum in signums:
            self.feed(SignalCame(signum))

    def pass_check(self, workers: int, *, shutdown_timeout_s: float = SHUTDOWN_TIMEOUT_S) -> None:
        assert self.checking
        self.checking = False
        self.feed(CheckPassed(limits(workers, shutdown_timeout_s=shutdown_timeout_s)))

    def fail_check(self, problem: str = "no such executor") -> None:
        assert self.checking
        self.checking = False
        self.feed(CheckFailed(problem, ExitStatus.USAGE))

    def end(self, child: Child, status: int = 0, *, in_order: bool = False, torn: bool = False) -> None:
        """The child is dead and reaped."""
        if self.children.pop(child.pid, None) is None:
            return
        if child.slot is None:
            self.feed(StewardExited(child.generation, f"status {status}"))
            return
        if not in_order:
            self.died.add(child.worker_id)
        started = None if in_order or torn else child.started
        how = f"status {status}"
        self.feed(WorkerExited(child.slot, child.worker_id, status, how, in_order, started, torn))
        for generation in self.fleet.generations.values():
            for lost in (*generation.bereaved, *generation.lost):
                self.lost.setdefault(lost.worker_id, lost)

    def kill(self, child: Child) -> None:
        self.end(child, -signal.SIGKILL)

    def tick(self, seconds: float = TICK_S) -> None:
        """One turn of the master's loop, `seconds` later."""
        self.now += seconds
        for child in list(self.children.values()):
            self._live(child)
        if self.fleet.awaits_orphans and self.orphans_die:
            self.feed(OrphansGone())
        for steward in self.stewards:
            if self.database_is_up and not steward.frozen:
                while steward.told:
                    lost = steward.told.pop(0)
                    self.reset.add(lost.worker_id)
                    self.feed(RunsReset(steward.generation, lost.worker_id))
        self.look()

    def run_for(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end and self.exit_status is None:
            self.tick()

    def look(self) -> None:
        if self.exit_status is not None:
            return
        views = {
            child.slot: WorkerView(
                child.incarnation,
                booting=child.booting,
                registered=child.registered,
                deadline_at=child.deadline_at,
                lease_ends_at=child.lease_ends_at,
                seen_at=child.seen_at,
            )
            for child in self.workers
            if child.slot is not None
        }
        self.feed(Look(views, {s.generation: s.forked_at if s.frozen else self.now for s in self.stewards}))

    def _live(self, child: Child) -> None:
        if signal.SIGKILL in child.signals:
            self.kill(child)
        elif child.slot is None:
            if signal.SIGQUIT in child.signals and not child.frozen:
                self.end(child)
        elif child.signals and child.obeys:
            self.end(child, in_order=True)
        elif child.booting and child.boots:
            child.booting = False
            child.registered = True

    # --- what the fleet wants done ---

    def _act(self, action: Action) -> Event | None:  # noqa: C901 (one line an action)
        self.actions.append(action)
        assert self.exit_status is None, f"{action} after Exit"
        match action:
            case StartCheck():
                assert not self.checking, "two checks at once"
                self.checking = True
            case AbandonCheck():
                assert self.checking, "there is no check to abandon"
                self.checking = False
            case AdoptSettings(number):
                assert number in self.fleet.generations
                ring = self.fleet.max_generations
                places = [generation % ring for generation in self.fleet.generations]
                assert len(places) == len(set(places)), "two generations have one place"
            case ForkWorker():
                return self._fork_worker(action)
            case ForkSteward(generation):
                return self._fork_steward(generation)
            case SendSignal(pid, signum):
                assert pid in self.children, f"signal {signum} to {pid}, which is nobody"
                self.children[pid].signals.append(signum)
            case TellSteward(generation, lost):
                assert lost.worker_id not in {child.worker_id for child in self.workers}
                for steward in self.stewards:
                    if steward.generation == generation and lost not in steward.told:
                        steward.told.append(lost)
            case Exit(status):
                assert not self.children, f"exit with children: {self.children}"
                assert not self.checking, "exit beside a check"
                self.exit_status = status
        return None

    def _fork_worker(self, action: ForkWorker) -> Event:
        assert self.fleet.phase is Phase.RUNNING, "a fork while the fleet winds down"
        assert 0 <= action.slot < self.fleet.max_slots
        assert action.slot not in {child.slot for child in self.workers}, f"slot {action.slot} is taken"
        self.fork_times.append(self.now)
        if self.forks_fail:
            return ForkFailed(action.generation, action.slot, "Resource temporarily unavailable")
        child = self._new_child(action.generation, action.slot, action.incarnation)
        child.boots, child.obeys = self.workers_boot, self.workers_obey
        return WorkerForked(action.slot, child.pid)

    def _fork_steward(self, generation: int) -> Event:
        assert generation not in {steward.generation for steward in self.stewards}
        if self.forks_fail:
            return ForkFailed(generation, None, "Resource temporarily unavailable")
        child = self._new_child(generation)
        child.frozen = self.stewards_are_frozen
        return StewardForked(generation, child.pid)

    def _new_child(self, generation: int, slot: int | None = None, incarnation: int = 0) -> Child:
        self._pids += 1
        child = Child(self._pids, generation, slot, incarnation, forked_at=self.now)
        self.children[child.pid] = child
        return child
