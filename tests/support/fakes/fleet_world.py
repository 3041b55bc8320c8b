"""A world without processes for `fleet.decide`: children that boot, obey, hang and die, and a clock of its own.

It carries out the actions as the master does, and refuses those that make no sense.
"""

from __future__ import annotations

import signal
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from reproq_prefork.errors import ExitStatus
from reproq_prefork.fleet.actions import (
    AbandonCheck,
    Action,
    AdoptSettings,
    EndMaster,
    Fork,
    ForkWorker,
    NotifySystemd,
    RequestWorker,
    SendSignal,
    StartCheck,
    TellSteward,
    WriteLog,
)
from reproq_prefork.fleet.decide import decide
from reproq_prefork.fleet.events import (
    CheckFailed,
    CheckPassed,
    Event,
    Exited,
    Forked,
    ForkFailed,
    OrphansGone,
    RunsReset,
    ScoreboardRead,
    SignalCame,
    Started,
    TemplateReady,
    TemplateRefused,
    WorkerExited,
    WorkerView,
)
from reproq_prefork.fleet.state import Fleet, Limits, Phase, Role
from reproq_prefork.model.run import LostWorker

TICK_S = 0.25
BOOT_TIMEOUT_S = 60.0
SHUTDOWN_TIMEOUT_S = 25.0
FENCE_GRACE_S = 2.5
CONNECT_S = 84.0  # four addresses of 21 s
FIRST_PID = 100


def limits(
    workers: int, *, shutdown_timeout_s: float = SHUTDOWN_TIMEOUT_S, has_template: bool = False
) -> Limits:
    return Limits(workers, BOOT_TIMEOUT_S, shutdown_timeout_s, FENCE_GRACE_S, has_template, CONNECT_S)


@dataclass(slots=True)
class Child:
    role: Role
    pid: int
    generation: int
    slot: int | None = None  # only of a worker
    incarnation: int = 0
    forked_at: float = 0.0
    obeys: bool = True
    boots: bool = True
    booting: bool = True
    connects: bool = True  # once it has booted; else it waits for a connection
    registered: bool = False
    deadline_at: float | None = None
    lease_ends_at: float | None = None
    seen_at: float | None = None  # None: it gives signs of life
    started: tuple[int, int] | None = None
    frozen: bool = False  # a steward that shows no life and answers nothing
    loads: bool = True  # a template imports the application
    answers: bool = True  # and forks what it is asked for
    asked_for: list[RequestWorker] = field(default_factory=list)
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
        self.template_fork_times: list[float] = []
        self.checking = False
        self.exit_status: ExitStatus | None = None
        self.workers_boot = True
        self.workers_connect = True
        self.workers_obey = True
        self.forks_fail = False
        self.orphans_die = True
        self.database_is_up = True
        self.stewards_are_frozen = False
        self.has_template = False  # of generations whose check passes from then on
        self.templates_load = True
        self.templates_answer = True
        self.applications_are_fit = True
        self.died: set[str] = set()  # every worker that did not leave in order, by id
        self.lost: dict[str, LostWorker] = {}  # what the fleet made of it
        self.reset: set[str] = set()
        self._pids = FIRST_PID

    # --- what a test looks at ---

    @property
    def workers(self) -> list[Child]:
        return sorted(self._children_of(Role.WORKER), key=lambda child: child.slot or 0)

    @property
    def stewards(self) -> list[Child]:
        return self._children_of(Role.STEWARD)

    @property
    def templates(self) -> list[Child]:
        return self._children_of(Role.TEMPLATE)

    def _children_of(self, role: Role) -> list[Child]:
        return [child for child in self.children.values() if child.role is role]

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
        for _ in range(2 + self.has_template):
            self.tick()

    def signal(self, *signums: int) -> None:
        for signum in signums:
            self.feed(SignalCame(signum))

    def pass_check(self, workers: int, *, shutdown_timeout_s: float = SHUTDOWN_TIMEOUT_S) -> None:
        assert self.checking
        self.checking = False
        passed = limits(workers, shutdown_timeout_s=shutdown_timeout_s, has_template=self.has_template)
        self.feed(CheckPassed(passed))

    def fail_check(self, problem: str = "no such executor") -> None:
        assert self.checking
        self.checking = False
        self.feed(CheckFailed(problem, ExitStatus.USAGE))

    def end(self, child: Child, status: int = 0, *, in_order: bool = False, torn: bool = False) -> None:
        """The child is dead and reaped."""
        if self.children.pop(child.pid, None) is None:
            return
        how = f"status {status}"
        if child.slot is None:
            self.feed(Exited(child.role, child.generation, how))
            return
        if not in_order:
            self.died.add(child.worker_id)
        started = None if in_order or torn else child.started
        self.feed(WorkerExited(child.slot, child.worker_id, status, how, in_order, started, torn))
        for generation in self.fleet.generations.values():
            for lost in (*generation.lost_with_orphans, *generation.lost):
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
                connecting=not child.booting and not child.registered,
            )
            for child in self.workers
            if child.slot is not None
        }
        self.feed(
            ScoreboardRead(
                views, {s.generation: s.forked_at if s.frozen else self.now for s in self.stewards}
            )
        )

    def _live(self, child: Child) -> None:
        if signal.SIGKILL in child.signals:
            self.kill(child)
        elif child.role is Role.TEMPLATE:
            self._live_as_template(child)
        elif child.role is Role.STEWARD:
            if signal.SIGQUIT in child.signals and not child.frozen:
                self.end(child)
        elif child.signals and child.obeys:
            self.end(child, in_order=True)
        else:
            child.booting = child.booting and not child.boots
            child.registered = child.registered or (not child.booting and child.connects)

    def _live_as_template(self, child: Child) -> None:
        if child.booting and child.loads:
            child.booting = False
            fit = self.applications_are_fit
            event: Event = (
                TemplateReady(child.generation) if fit else TemplateRefused(child.generation, "threads")
            )
            self.feed(event)
        while child.answers and child.asked_for and child.pid in self.children and self.goes_on():
            self.answer(child)

    def answer(self, template: Child) -> None:
        """It does the oldest of what it was asked for."""
        asked = template.asked_for.pop(0)
        self.feed(self._new_worker(asked))

    # --- what the fleet wants done ---

    def _act(self, action: Action) -> Event | None:  # noqa: C901 (one line an action)
        self.actions.append(action)
        assert self.exit_status is None, f"{action} after EndMaster"
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
            case RequestWorker():
                self._request_worker(action)
            case Fork(Role.TEMPLATE, generation):
                return self._fork_template(generation)
            case Fork(Role.STEWARD, generation):
                return self._fork_steward(generation)
            case SendSignal(pid, signum):
                assert pid in self.children, f"signal {signum} to {pid}, which is nobody"
                self.children[pid].signals.append(signum)
            case TellSteward(generation, lost):
                assert lost.worker_id not in {child.worker_id for child in self.workers}
                for steward in self.stewards:
                    if steward.generation == generation and lost not in steward.told:
                        steward.told.append(lost)
            case EndMaster(status):
                assert not self.children, f"exit with children: {self.children}"
                assert not self.checking, "exit beside a check"
                self.exit_status = status
        return None

    def _fork_worker(self, action: ForkWorker) -> Event:
        generation = self.fleet.generations[action.generation]
        assert generation.template is None, "the template should have been asked"
        self._note_fork(action)
        return self._new_worker(action)

    def _request_worker(self, action: RequestWorker) -> None:
        self._note_fork(action)
        (template,) = [child for child in self.templates if child.generation == action.generation]
        assert not template.booting, "it cannot fork yet"
        assert not template.signals, "it is about to end"
        template.asked_for.append(action)

    def _note_fork(self, action: ForkWorker | RequestWorker) -> None:
        assert self.fleet.phase is Phase.RUNNING, "a fork while the fleet winds down"
        assert 0 <= action.slot < self.fleet.max_slots
        taken = {child.slot for child in self.workers} | {a.slot for t in self.templates for a in t.asked_for}
        assert action.slot not in taken, f"slot {action.slot} is taken"
        self.fork_times.append(self.now)

    def _new_worker(self, action: ForkWorker | RequestWorker) -> Event:
        return self._new_child(
            Role.WORKER,
            action.generation,
            action.slot,
            incarnation=action.incarnation,
            boots=self.workers_boot,
            obeys=self.workers_obey,
            connects=self.workers_connect,
        )

    def _fork_template(self, generation: int) -> Event:
        assert generation not in {template.generation for template in self.templates}
        assert self.fleet.phase is Phase.RUNNING
        self.template_fork_times.append(self.now)
        return self._new_child(
            Role.TEMPLATE, generation, loads=self.templates_load, answers=self.templates_answer
        )

    def _fork_steward(self, generation: int) -> Event:
        assert generation not in {steward.generation for steward in self.stewards}
        return self._new_child(Role.STEWARD, generation, frozen=self.stewards_are_frozen)

    def _new_child(self, role: Role, generation: int, slot: int | None = None, **traits: Any) -> Event:
        if self.forks_fail:
            return ForkFailed(role, generation, "Resource temporarily unavailable", slot)
        self._pids += 1
        self.children[self._pids] = Child(role, self._pids, generation, slot, forked_at=self.now, **traits)
        return Forked(role, generation, self._pids, slot)
