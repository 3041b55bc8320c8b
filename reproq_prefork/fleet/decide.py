"""Every rule about how many workers there are, when one is killed, and when to give up. Pure: no I/O.

The master turns what happens into events, and carries out the actions. After every event the same upkeep
(`keep_up`) runs. So a rule only says how things should be, not what has just changed.
"""

from __future__ import annotations

import signal
from dataclasses import replace

from reproq_prefork.errors import ExitStatus
from reproq_prefork.fleet import template as templates
from reproq_prefork.fleet.actions import (
    Action,
    DumpState,
    EndMaster,
    Fork,
    ForkWorker,
    RequestWorker,
    SendSignal,
    ShowQuiet,
    TellSteward,
    WakeWorkers,
)
from reproq_prefork.fleet.boots import boot_failed, boot_limit_s, charge_respawn, fork_failed, note_ready
from reproq_prefork.fleet.draft import Draft
from reproq_prefork.fleet.events import (
    CheckFailed,
    CheckPassed,
    Drained,
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
from reproq_prefork.fleet.reload import check_ended, reload, start_check
from reproq_prefork.fleet.state import Fleet, FleetSteward, FleetWorker, Phase, Role
from reproq_prefork.model.outcome import FailureKind
from reproq_prefork.model.run import LostWorker
from reproq_prefork.text.log import LogLevel

QUIT_GRACE_S = 5.0  # between SIGQUIT and SIGKILL
DEADLINE_GRACE_S = 5.0  # a worker ends its task at the deadline; this much later the master ends the worker
WORKER_STALE_S = 60.0  # longer than the longest statement, and than a connect that tries several hosts
STEWARD_STALE_S = 20.0  # longer than the longest statement and connect together
STEWARD_BACKOFF_S = 1.0
FAREWELL_S = 5.0  # for the steward's last answers, while the database is out of reach
PAUSE_S = 5.0  # a longer gap between two events means that the master itself was stopped


def decide(fleet: Fleet, event: Event, now: float) -> tuple[Fleet, list[Action]]:
    """The fleet after `event`, and the actions that the master must take. `now`: seconds of CLOCK_BOOTTIME."""
    decision = _Decision(fleet, now)
    decision.note_pause()
    decision.take(event)
    decision.keep_up()
    return decision.fleet, decision.actions


class _Decision(Draft):
    """One run of `decide`."""

    def note_pause(self) -> None:
        """If the master was stopped, all children look late when it wakes up. They get their time again."""
        if self.fleet.decided_at is not None and self.now - self.fleet.decided_at > PAUSE_S:
            self.set(woke_at=self.now)
            self.log("the master was stopped for a while", LogLevel.WARNING)
        self.set(decided_at=self.now)

    # --- what happened ---

    def take(self, event: Event) -> None:  # noqa: C901 (one line an event)
        match event:
            case Started():
                start_check(self)
            case SignalCame(signum):
                self._signal_came(signum)
            case Forked():
                self._forked(event)
            case ForkFailed():
                self._fork_failed(event)
            case TemplateReady(generation):
                templates.loaded(self, generation)
            case TemplateRefused(generation, reason):
                templates.unfit(self, generation, reason)
            case Exited(Role.TEMPLATE, generation, how):
                templates.exited(self, generation, how)
            case Exited(Role.STEWARD, generation, how):
                self._steward_exited(generation, how)
            case WorkerExited():
                self._worker_exited(event)
            case CheckPassed() | CheckFailed():
                check_ended(self, event)
            case OrphansGone():
                self._orphans_gone()
            case RunsReset(generation, worker_id):
                self._runs_reset(generation, worker_id)
            case Drained(generation):
                if self.fleet.current and self.fleet.current.number == generation:
                    self.advance(Phase.DRAINING, "the queues are drained")
            case ScoreboardRead():
                self._look(event)

    def _signal_came(self, signum: int) -> None:
        match signum:
            case signal.SIGTERM | signal.SIGINT:
                again = self.fleet.interrupts > 0 or (
                    signum == signal.SIGINT and self.fleet.phase is not Phase.RUNNING
                )
                self.set(interrupts=self.fleet.interrupts + (signum == signal.SIGINT))
                name = signal.Signals(signum).name
                self.advance(Phase.STOPPING if again else Phase.DRAINING, f"received {name}")
            case signal.SIGQUIT:
                self.advance(Phase.STOPPING, "received SIGQUIT")
            case signal.SIGHUP:
                reload(self)
            case signal.SIGTTIN | signal.SIGTTOU:
                self._resize(1 if signum == signal.SIGTTIN else -1)
            case signal.SIGUSR1:
                self.actions.append(DumpState())
            case signal.SIGUSR2:
                self.set(quiet=not self.fleet.quiet)
                self.actions.append(ShowQuiet(self.fleet.quiet))
                self.log(
                    "quiet: workers finish what they run and claim nothing" if self.fleet.quiet else "resumed"
                )
                if not self.fleet.quiet:
                    self.actions.append(WakeWorkers())
            case _:
                pass  # SIGCHLD: the master looks for dead children after every event

    def _resize(self, change: int) -> None:
        current = self.fleet.current
        if current is None or self.fleet.phase is not Phase.RUNNING:
            return
        target = current.target + change
        most = self.fleet.max_slots // 2
        if not 1 <= target <= most:
            stays = f"the number of workers stays at {current.target}: the limits are 1 and {most}"
            self.log(stays, LogLevel.WARNING)
            return
        self.set_generation(current.number, target=target)
        self.log(f"the number of workers is now {target}")

    def _forked(self, event: Forked) -> None:
        match event:
            case Forked(Role.TEMPLATE, number, pid):
                templates.forked(self, number, pid)
            case Forked(Role.WORKER, number, pid, int(slot)):
                self.set_worker(slot, pid=pid, forked_at=self.now)
                templates.answered(self, number)
            case Forked(Role.STEWARD, number, pid):
                self.set_generation(number, steward=FleetSteward(pid=pid, forked_at=self.now))
                for lost in self.fleet.generations[number].lost:
                    self.actions.append(TellSteward(number, lost))

    def _fork_failed(self, event: ForkFailed) -> None:
        again_at = fork_failed(self, event.reason)
        match event:
            case ForkFailed(Role.TEMPLATE, number):
                templates.not_forked(self, number, again_at)
            case ForkFailed(Role.WORKER, number, _, int(slot)):
                self.remove_worker(slot)
                self.postpone_forks(number, again_at)
                templates.answered(self, number)
            case ForkFailed(Role.STEWARD, number):
                self.set_generation(number, steward=FleetSteward(fork_at=again_at))

    def _worker_exited(self, event: WorkerExited) -> None:
        worker = self.fleet.workers[event.slot]
        self.remove_worker(event.slot)
        if not event.left_in_order:
            generation = self.fleet.generations[worker.generation]
            lost = _lost_worker(worker, event)
            self.set_generation(worker.generation, lost_with_orphans=(*generation.lost_with_orphans, lost))
        expected = event.left_in_order or worker.told
        lease_lost = event.status == ExitStatus.LEASE_LOST
        self.log(
            f"worker {event.slot} (pid {worker.pid}) ended: {event.how}",
            LogLevel.DEBUG if expected or lease_lost else LogLevel.WARNING,
        )
        if expected:
            return
        # It was ready, even if it died before the master saw that. A poison pill is not a failed boot.
        was_ready = worker.ready or event.registered or event.started is not None
        if was_ready:
            self.set_generation(worker.generation, boot_failures=0)
        if was_ready or lease_lost:
            charge_respawn(self, worker.generation)
        else:
            problem = f"worker {event.slot} ended before it was ready: {event.how}"
            boot_failed(self, worker.generation, forked_at=worker.forked_at, problem=problem)

    def _steward_exited(self, number: int, how: str) -> None:
        steward = self.fleet.generations[number].steward
        if not steward.told:
            self.log(f"the steward ended: {how}; starting another", LogLevel.WARNING)
        lived_s = self.now - steward.forked_at
        fork_at = self.now if lived_s > STEWARD_BACKOFF_S else self.now + STEWARD_BACKOFF_S
        self.set_generation(number, steward=FleetSteward(fork_at=fork_at, told=steward.told))

    def _orphans_gone(self) -> None:
        for generation in list(self.fleet.generations.values()):
            self.set_generation(
                generation.number,
                lost_with_orphans=(),
                lost=(*generation.lost, *generation.lost_with_orphans),
                left_behind=False,
            )
            if generation.steward.pid:
                self.actions.extend(
                    TellSteward(generation.number, lost) for lost in generation.lost_with_orphans
                )

    def _runs_reset(self, number: int, worker_id: str) -> None:
        generation = self.fleet.generations.get(number)
        if generation is not None:
            waiting = tuple(lost for lost in generation.lost if lost.worker_id != worker_id)
            self.set_generation(number, lost=waiting)

    # --- what the scoreboard shows ---

    def _look(self, look: ScoreboardRead) -> None:
        for slot, view in look.workers.items():
            worker = self.fleet.workers.get(slot)
            if worker is not None and worker.pid and worker.incarnation == view.incarnation:
                self._look_at_worker(worker, view)
        for number, heartbeat_at in look.heartbeats.items():
            self._look_at_steward(number, heartbeat_at)
        for number in list(self.fleet.generations):
            templates.look(self, number)

    def _look_at_worker(self, worker: FleetWorker, view: WorkerView) -> None:
        generation = self.fleet.generations[worker.generation]
        if not worker.ready and view.registered:
            worker = self.set_worker(worker.slot, ready=True)
            self.set_generation(generation.number, boot_failures=0)
        if worker.connecting != (view.connecting and not worker.ready):
            worker = self.set_worker(worker.slot, connecting=not worker.connecting)
        if worker.told == signal.SIGKILL:
            return
        if view.deadline_at is not None and self.late_by(view.deadline_at) > DEADLINE_GRACE_S:
            self._kill(
                worker, FailureKind.TIMEOUT, "its task is past its deadline, and the worker did not end it"
            )
        elif (
            view.lease_ends_at is not None
            and self.late_by(view.lease_ends_at) > generation.limits.fence_grace_s
        ):
            self._kill(worker, FailureKind.LEASE_EXPIRED, "its lease has ended and it did not end its task")
        elif view.seen_at is not None and worker.ready and self.late_by(view.seen_at) > WORKER_STALE_S:
            # It may hold a claim that nobody sees, and its lease is renewed as long as the process exists.
            self._kill(worker, FailureKind.WORKER_LOST, "it shows no sign of life")
        elif not view.registered and not worker.ready:
            limit_s = boot_limit_s(self, worker, view)
            if limit_s is not None and self.late_by(worker.forked_at) > limit_s:
                self._kill(worker, FailureKind.WORKER_LOST, f"it was not ready within {limit_s:g} s")

    def _kill(self, worker: FleetWorker, kind: FailureKind, why: str) -> None:
        self.log(f"killing worker {worker.slot} (pid {worker.pid}): {why}", LogLevel.ERROR)
        self.signal_worker(worker, signal.SIGKILL, killed_as=kind)
        if not worker.ready:
            problem = f"worker {worker.slot}: {why}"
            boot_failed(self, worker.generation, forked_at=worker.forked_at, problem=problem)

    def _look_at_steward(self, number: int, heartbeat_at: float) -> None:
        generation = self.fleet.generations.get(number)
        if generation is None or not generation.steward.pid or generation.steward.told:
            return
        last_sign = max(heartbeat_at, generation.steward.forked_at)
        if self.late_by(last_sign) > STEWARD_STALE_S:
            self.log("killing the steward: it shows no sign of life", LogLevel.ERROR)
            self.actions.append(SendSignal(generation.steward.pid, signal.SIGKILL))
            # `told` is not set, because another steward must follow.
            self.set_generation(number, steward=replace(generation.steward, forked_at=self.now))

    # --- what should be ---

    def keep_up(self) -> None:
        self._keep_phase()
        for number in sorted(self.fleet.generations):
            generation = self.fleet.generations[number]
            if self.fleet.phase is Phase.RUNNING and not generation.draining:
                templates.keep(self, number)
                self._keep_number(number)
                note_ready(self, number)
            else:
                self._wind_down(number)
            self._keep_steward(number)
        if self.fleet.phase is not Phase.RUNNING and not self.fleet.generations:
            self.actions.append(EndMaster(self.fleet.exit_status))

    def _keep_phase(self) -> None:
        fleet = self.fleet
        if fleet.phase is Phase.DRAINING:
            patience_s = max((g.limits.shutdown_timeout_s for g in fleet.generations.values()), default=0.0)
            if self.now - fleet.phase_since >= patience_s and fleet.workers:
                self.advance(Phase.STOPPING, f"workers are still busy after {patience_s:g} s")

    def _keep_number(self, number: int) -> None:
        generation = self.fleet.generations[number]
        staying = [worker for worker in self.fleet.workers_of(number) if not worker.told]
        for worker in sorted(staying, key=lambda worker: worker.slot)[generation.target :]:
            # A signal to pid 0 would reach the whole process group. A worker without a pid gets it after its fork.
            if worker.pid:
                self.signal_worker(worker, signal.SIGTERM)
        template = generation.template
        if self.now < generation.fork_at or (template is not None and not template.can_fork):
            return
        free = (slot for slot in range(self.fleet.max_slots) if slot not in self.fleet.workers)
        for slot, _ in zip(free, range(generation.target - len(staying)), strict=False):
            incarnation = self.fleet.incarnations_made + 1
            worker = FleetWorker(slot, number, incarnation, forked_at=self.now)
            self.set(incarnations_made=incarnation, workers={**self.fleet.workers, slot: worker})
            fork = ForkWorker if template is None else RequestWorker
            self.actions.append(fork(number, slot, incarnation))

    def _wind_down(self, number: int) -> None:
        templates.end(self, number)
        stopping = self.fleet.phase is Phase.STOPPING
        self.signal_workers(number, signal.SIGQUIT if stopping else signal.SIGTERM)
        for worker in self.fleet.workers_of(number):
            if worker.told == signal.SIGQUIT and self.late_by(worker.told_at) > QUIT_GRACE_S:
                self.log(f"killing worker {worker.slot} (pid {worker.pid}): it does not stop", LogLevel.ERROR)
                self.signal_worker(worker, signal.SIGKILL, killed_as=FailureKind.SHUTDOWN)
        generation = self.fleet.generations[number]
        if self.fleet.workers_of(number) or templates.is_there(self, number):
            return
        if generation.empty_since is None:
            self.set_generation(number, empty_since=self.now)
            generation = self.fleet.generations[number]
        waits = bool(generation.lost_with_orphans or generation.lost)
        if (waits or generation.left_behind) and self.now - (generation.empty_since or self.now) < FAREWELL_S:
            return
        if waits:
            self.log(
                "the runs of dead workers wait for the end of their leases: the database is out of reach",
                LogLevel.WARNING,
            )
            self.set_generation(number, lost_with_orphans=(), lost=())
        self._dismiss_steward(number)

    def _dismiss_steward(self, number: int) -> None:
        steward = self.fleet.generations[number].steward
        if not steward.pid and not steward.being_forked:
            self.set(generations={n: g for n, g in self.fleet.generations.items() if n != number})
        elif steward.pid and not steward.told:
            # Not SIGTERM, because a service manager may send that to all processes at once.
            self.actions.append(SendSignal(steward.pid, signal.SIGQUIT))
            told = replace(steward, told=signal.SIGQUIT, told_at=self.now)
            self.set_generation(number, steward=told)
        elif steward.told == signal.SIGQUIT and self.late_by(steward.told_at) > QUIT_GRACE_S:
            self.actions.append(SendSignal(steward.pid, signal.SIGKILL))
            self.set_generation(number, steward=replace(steward, told=signal.SIGKILL))

    def _keep_steward(self, number: int) -> None:
        generation = self.fleet.generations.get(number)
        if generation is None or generation.steward.pid or generation.steward.being_forked:
            return
        if generation.steward.told or self.now < generation.steward.fork_at:
            return
        self.set_generation(number, steward=replace(generation.steward, being_forked=True))
        self.actions.append(Fork(Role.STEWARD, number))


def _lost_worker(worker: FleetWorker, event: WorkerExited) -> LostWorker:
    if worker.killed_as is not None:
        kind = worker.killed_as
    elif event.status == ExitStatus.LEASE_LOST:
        kind = FailureKind.LEASE_EXPIRED
    else:
        kind = FailureKind.WORKER_LOST
    return LostWorker(
        event.worker_id,
        started=event.started,
        charge_all=event.torn,
        refund=worker.told == signal.SIGQUIT or kind is FailureKind.SHUTDOWN,
        kind=kind,
        message=f"the worker ended: {event.how}",
        unrecorded=event.unrecorded,
    )
