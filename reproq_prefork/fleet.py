"""Every rule about how many workers there are, when one is killed, and when to give up. Pure: no I/O.

The master turns what happens into events, and carries out the actions. After every event the same upkeep runs,
so a rule needs to say only what should be, not what has just changed.
"""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import Any

from reproq_prefork.errors import ExitStatus
from reproq_prefork.fleet_state import (
    AbandonCheck,
    Action,
    AdoptSettings,
    CheckFailed,
    CheckPassed,
    Drained,
    DumpState,
    Event,
    Exit,
    Fleet,
    ForkFailed,
    ForkSteward,
    ForkWorker,
    Generation,
    Look,
    NotifySystemd,
    OrphansGone,
    Phase,
    Reload,
    RunsReset,
    SendSignal,
    ShowQuiet,
    SignalCame,
    StartCheck,
    Started,
    Steward,
    StewardExited,
    StewardForked,
    TellSteward,
    WakeWorkers,
    Worker,
    WorkerExited,
    WorkerForked,
    WorkerView,
    WriteLog,
)
from reproq_prefork.log import LogLevel
from reproq_prefork.task_run import FailureKind, LostWorker

BOOT_FAILURE_LIMIT = 3  # in a row, in a generation that was never ready
BOOT_BACKOFF_BASE_S = 0.5
BOOT_BACKOFF_MAX_S = 30.0
BOOT_BACKOFF_DOUBLINGS = 10  # past the cap; a fleet may fail for days, and a float would overflow
RESPAWN_BURST = 50.0  # deaths that are replaced at once; then `RESPAWNS_A_SECOND`
RESPAWNS_A_SECOND = 10.0
FORK_RETRY_S = 1.0
QUIT_GRACE_S = 5.0  # between SIGQUIT and SIGKILL
DEADLINE_GRACE_S = 5.0  # a worker ends its task at the deadline; this much later the master ends the worker
WORKER_STALE_S = 60.0  # above the longest statement, and a connect that tries several hosts
STEWARD_STALE_S = 20.0  # above the longest statement and connect together
STEWARD_BACKOFF_S = 1.0
FAREWELL_S = 5.0  # for the steward's last answers, while the database is out of reach
PAUSE_S = 5.0  # a gap between two events that means that the master itself was stopped


def decide(fleet: Fleet, event: Event, now: float) -> tuple[Fleet, list[Action]]:
    """What `event` makes of the fleet, and what is to be done about it; `now` in seconds of CLOCK_BOOTTIME."""
    decision = _Decision(fleet, now)
    decision.note_pause()
    decision.take(event)
    decision.keep_up()
    return decision.fleet, decision.actions


class _Decision:
    """One run of `decide`: the fleet as it becomes, and the actions so far."""

    def __init__(self, fleet: Fleet, now: float) -> None:
        self.fleet = fleet
        self.now = now
        self.actions: list[Action] = []

    def note_pause(self) -> None:
        """Whoever was stopped finds everybody late on waking: the children get their time once more."""
        if self.fleet.decided_at is not None and self.now - self.fleet.decided_at > PAUSE_S:
            self._set(woke_at=self.now)
            self._log("the master was stopped for a while", LogLevel.WARNING)
        self._set(decided_at=self.now)

    def _late_by(self, due_at: float) -> float:
        return self.now - max(due_at, self.fleet.woke_at)

    # --- what happened ---

    def take(self, event: Event) -> None:  # noqa: C901 (one line an event)
        match event:
            case Started():
                self._start_check()
            case SignalCame(signum):
                self._signal_came(signum)
            case WorkerForked(slot, pid):
                self._set_worker(slot, pid=pid, forked_at=self.now)
            case StewardForked(generation, pid):
                self._steward_forked(generation, pid)
            case ForkFailed():
                self._fork_failed(event)
            case WorkerExited():
                self._worker_exited(event)
            case StewardExited():
                self._steward_exited(event)
            case CheckPassed() | CheckFailed():
                self._check_ended(event)
            case OrphansGone():
                self._orphans_gone()
            case RunsReset(generation, worker_id):
                self._runs_reset(generation, worker_id)
            case Drained(generation):
                if self.fleet.current and self.fleet.current.number == generation:
                    self._advance(Phase.DRAINING, "the queues are drained")
            case Look():
                self._look(event)

    def _signal_came(self, signum: int) -> None:
        match signum:
            case signal.SIGTERM | signal.SIGINT:
                again = self.fleet.interrupts > 0 or (
                    signum == signal.SIGINT and self.fleet.phase is not Phase.RUNNING
                )
                self._set(interrupts=self.fleet.interrupts + (signum == signal.SIGINT))
                name = signal.Signals(signum).name
                self._advance(Phase.STOPPING if again else Phase.DRAINING, f"{name} came")
            case signal.SIGQUIT:
                self._advance(Phase.STOPPING, "SIGQUIT came")
            case signal.SIGHUP:
                self._reload()
            case signal.SIGTTIN | signal.SIGTTOU:
                self._resize(1 if signum == signal.SIGTTIN else -1)
            case signal.SIGUSR1:
                self.actions.append(DumpState())
            case signal.SIGUSR2:
                self._set(quiet=not self.fleet.quiet)
                self.actions.append(ShowQuiet(self.fleet.quiet))
                self._log(
                    "quiet: workers finish what they run and claim nothing" if self.fleet.quiet else "resumed"
                )
                if not self.fleet.quiet:
                    self.actions.append(WakeWorkers())
            case _:
                pass  # SIGCHLD: the master looks for the dead after every event

    def _advance(self, phase: Phase, why: str) -> None:
        if phase <= self.fleet.phase:
            return
        if self.fleet.phase is Phase.RUNNING:
            self.actions.append(NotifySystemd("STOPPING=1"))
        if self.fleet.checking:
            self.actions.append(AbandonCheck())
        self._set(phase=phase, phase_since=self.now, checking=False, reload=Reload.NONE, reload_again=False)
        self._log(f"{'draining' if phase is Phase.DRAINING else 'stopping at once'}: {why}")

    def _reload(self) -> None:
        if self.fleet.phase is not Phase.RUNNING:
            return
        if self.fleet.checking or self.fleet.reload is not Reload.NONE:
            self._set(reload_again=True)
            self._log("the settings are being read already; they are read again after that")
            return
        self._set(reload=Reload.CHECKING)
        self.actions.append(NotifySystemd("RELOADING=1"))
        self._log("reloading: checking the settings first")
        self._start_check()

    def _start_check(self) -> None:
        self._set(checking=True)
        self.actions.append(StartCheck())

    def _check_ended(self, event: CheckPassed | CheckFailed) -> None:
        if not self.fleet.checking:
            return  # abandoned meanwhile
        self._set(checking=False)
        is_reload = self.fleet.reload is Reload.CHECKING
        if isinstance(event, CheckFailed):
            if is_reload:
                self._end_reload(f"reload refused, nothing has changed: {event.problem}", LogLevel.ERROR)
            else:
                self._first_check_failed(event)
            return
        refusal = self._no_room_for(event.limits.workers) if is_reload else None
        if refusal is not None:
            self._end_reload(f"reload refused, nothing has changed: {refusal}", LogLevel.ERROR)
            return
        number = self._next_number()
        limits = event.limits
        generation = Generation(
            number,
            limits,
            target=min(limits.workers, self.fleet.max_slots),
            respawn_credit=RESPAWN_BURST,
            credited_at=self.now,
        )
        self._set(
            generations_made=number,
            generations={**self.fleet.generations, number: generation},
            reload=Reload.STARTING if is_reload else Reload.NONE,
        )
        self.actions.append(AdoptSettings(number))
        if not is_reload and self.fleet.reload_again:
            self._set(reload_again=False)
            self._reload()

    def _first_check_failed(self, event: CheckFailed) -> None:
        self._log(event.problem, LogLevel.ERROR)
        if self.fleet.reload_again:
            self._set(reload_again=False)
            self._start_check()
        else:
            self._set(exit_status=event.exit_status)
            self._advance(Phase.STOPPING, "the settings do not work")

    def _no_room_for(self, workers: int) -> str | None:
        fleet = self.fleet
        most = fleet.max_slots // 2  # else the reload after this one would find no room
        if workers > most:
            return f"{workers} workers are too many for this master, which has room for {most}; restart it"
        if workers > fleet.max_slots - len(fleet.workers) or len(fleet.generations) >= fleet.max_generations:
            return "too many workers of earlier generations still drain; send SIGHUP again once they are done"
        return None

    def _next_number(self) -> int:
        """Generations have places on the scoreboard by number, in a ring: one that still drains keeps its own."""
        ring = self.fleet.max_generations
        taken = {number % ring for number in self.fleet.generations}
        number = self.fleet.generations_made + 1
        while number % ring in taken:
            number += 1
        return number

    def _end_reload(self, message: str, level: LogLevel = LogLevel.INFO) -> None:
        self._log(message, level)
        again = self.fleet.reload_again
        self._set(reload=Reload.NONE, reload_again=False)
        self.actions.append(NotifySystemd("READY=1"))
        if again:
            self._reload()

    def _resize(self, change: int) -> None:
        current = self.fleet.current
        if current is None or self.fleet.phase is not Phase.RUNNING:
            return
        target = current.target + change
        most = self.fleet.max_slots // 2
        if not 1 <= target <= most:
            stays = f"the number of workers stays at {current.target}: the limits are 1 and {most}"
            self._log(stays, LogLevel.WARNING)
            return
        self._set_generation(current.number, target=target)
        self._log(f"the number of workers is now {target}")

    def _steward_forked(self, number: int, pid: int) -> None:
        self._set_generation(number, steward=Steward(pid=pid, forked_at=self.now))
        for lost in self.fleet.generations[number].lost:
            self.actions.append(TellSteward(number, lost))

    def _fork_failed(self, event: ForkFailed) -> None:
        self._log(f"no process can be started, trying again: {event.reason}", LogLevel.ERROR)
        again_at = self.now + FORK_RETRY_S
        if event.slot is None:
            self._set_generation(event.generation, steward=Steward(fork_at=again_at))
        else:
            self._remove_worker(event.slot)
            self._postpone_forks(event.generation, again_at)

    def _worker_exited(self, event: WorkerExited) -> None:
        worker = self.fleet.workers[event.slot]
        self._remove_worker(event.slot)
        if not event.left_in_order:
            generation = self.fleet.generations[worker.generation]
            lost = _lost_worker(worker, event)
            self._set_generation(worker.generation, bereaved=(*generation.bereaved, lost))
        expected = event.left_in_order or worker.told
        lease_lost = event.status == ExitStatus.LEASE_LOST
        self._log(
            f"worker {event.slot} (pid {worker.pid}) ended: {event.how}",
            LogLevel.DEBUG if expected or lease_lost else LogLevel.WARNING,
        )
        if expected:
            return
        # It was ready, though it may have died too soon to be looked at: a poison pill is no failed boot.
        was_ready = worker.ready or event.registered or event.started is not None
        if was_ready:
            self._set_generation(worker.generation, boot_failures=0)
        if was_ready or lease_lost:
            self._charge_respawn(worker.generation)
        else:
            self._boot_failed(worker, f"worker {event.slot} ended before it was ready: {event.how}")

    def _charge_respawn(self, number: int) -> None:
        generation = self.fleet.generations[number]
        earned = (self.now - generation.credited_at) * RESPAWNS_A_SECOND
        credit = min(RESPAWN_BURST, generation.respawn_credit + earned) - 1
        self._set_generation(number, respawn_credit=credit, credited_at=self.now)
        self._postpone_forks(number, self.now + max(0.0, -credit) / RESPAWNS_A_SECOND)

    def _boot_failed(self, worker: Worker, problem: str) -> None:
        number = worker.generation
        generation = self.fleet.generations[number]
        failures = generation.boot_failures
        if not failures or worker.forked_at > generation.boot_failed_at:
            # Forked after the last failure. One trouble that meets eight workers at once is one failure.
            failures += 1
            self._set_generation(number, boot_failures=failures, boot_failed_at=self.now)
        doublings = min(failures - 1, BOOT_BACKOFF_DOUBLINGS)
        self._postpone_forks(number, self.now + min(BOOT_BACKOFF_MAX_S, BOOT_BACKOFF_BASE_S * 2.0**doublings))
        gives_up = not generation.was_ready and not generation.draining and failures >= BOOT_FAILURE_LIMIT
        if gives_up and self.fleet.phase is Phase.RUNNING:
            self._give_up(number, problem)

    def _give_up(self, number: int, problem: str) -> None:
        """A generation cannot boot. The fleet goes on with another that stays, if there is one."""
        if not any(g.number != number and not g.draining for g in self.fleet.generations.values()):
            self._log(f"giving up: {problem}", LogLevel.ERROR)
            self._set(exit_status=ExitStatus.BOOT_FAILED)
            self._advance(Phase.STOPPING, "the workers cannot boot")
            return
        self._set_generation(number, draining=True)
        self._tell_workers(number, signal.SIGQUIT)
        if self._is_starting(number):
            self._end_reload(f"reload rolled back, the old workers stay: {problem}", LogLevel.ERROR)
        else:
            self._log(f"giving up on generation {number}, the next one starts: {problem}", LogLevel.ERROR)

    def _is_starting(self, number: int) -> bool:
        """It is the generation that a reload has started and that was not ready yet."""
        return self.fleet.reload is Reload.STARTING and number == self.fleet.generations_made

    def _steward_exited(self, event: StewardExited) -> None:
        generation = self.fleet.generations[event.generation]
        if not generation.steward.told:
            self._log(f"the steward ended: {event.how}; starting another", LogLevel.WARNING)
        lived_s = self.now - generation.steward.forked_at
        fork_at = self.now if lived_s > STEWARD_BACKOFF_S else self.now + STEWARD_BACKOFF_S
        self._set_generation(event.generation, steward=Steward(fork_at=fork_at, told=generation.steward.told))

    def _orphans_gone(self) -> None:
        for generation in list(self.fleet.generations.values()):
            self._set_generation(
                generation.number, bereaved=(), lost=(*generation.lost, *generation.bereaved)
            )
            if generation.steward.pid:
                self.actions.extend(TellSteward(generation.number, lost) for lost in generation.bereaved)

    def _runs_reset(self, number: int, worker_id: str) -> None:
        generation = self.fleet.generations.get(number)
        if generation is not None:
            waiting = tuple(lost for lost in generation.lost if lost.worker_id != worker_id)
            self._set_generation(number, lost=waiting)

    # --- what the scoreboard shows ---

    def _look(self, look: Look) -> None:
        for slot, view in look.workers.items():
            worker = self.fleet.workers.get(slot)
            if worker is not None and worker.pid and worker.incarnation == view.incarnation:
                self._look_at_worker(worker, view)
        for number, heartbeat_at in look.heartbeats.items():
            self._look_at_steward(number, heartbeat_at)

    def _look_at_worker(self, worker: Worker, view: WorkerView) -> None:
        generation = self.fleet.generations[worker.generation]
        if not worker.ready and view.registered:
            worker = self._set_worker(worker.slot, ready=True)
            self._set_generation(generation.number, boot_failures=0)
        if worker.told == signal.SIGKILL:
            return
        if view.deadline_at is not None and self._late_by(view.deadline_at) > DEADLINE_GRACE_S:
            self._kill(worker, FailureKind.TIMEOUT, "its task is past its deadline and it did not end it")
        elif (
            view.lease_ends_at is not None
            and self._late_by(view.lease_ends_at) > generation.limits.fence_grace_s
        ):
            self._kill(worker, FailureKind.LEASE_EXPIRED, "its lease has ended and it did not end its task")
        elif view.seen_at is not None and worker.ready and self._late_by(view.seen_at) > WORKER_STALE_S:
            # It may have a claim that nobody sees, and its lease is renewed for as long as it is there.
            self._kill(worker, FailureKind.WORKER_LOST, "it shows no sign of life")
        elif not view.registered and self._boots_too_long(worker, generation, view):
            self._kill(
                worker,
                FailureKind.WORKER_LOST,
                f"it was not ready within {generation.limits.boot_timeout_s:g} s",
            )

    def _boots_too_long(self, worker: Worker, generation: Generation, view: WorkerView) -> bool:
        # Later on, waiting for the database is no fault of the worker's.
        at_fault = view.booting or not generation.was_ready
        too_long = self._late_by(worker.forked_at) > generation.limits.boot_timeout_s
        return at_fault and too_long and not worker.ready

    def _kill(self, worker: Worker, kind: FailureKind, why: str) -> None:
        self._log(f"killing worker {worker.slot} (pid {worker.pid}): {why}", LogLevel.ERROR)
        self._tell(worker, signal.SIGKILL, killed_as=kind)
        if not worker.ready:
            self._boot_failed(worker, f"worker {worker.slot}: {why}")

    def _look_at_steward(self, number: int, heartbeat_at: float) -> None:
        generation = self.fleet.generations.get(number)
        if generation is None or not generation.steward.pid or generation.steward.told:
            return
        last_sign = max(heartbeat_at, generation.steward.forked_at)
        if self._late_by(last_sign) > STEWARD_STALE_S:
            self._log("killing the steward: it shows no sign of life", LogLevel.ERROR)
            self.actions.append(SendSignal(generation.steward.pid, signal.SIGKILL))
            # Not `told`: another one is to follow.
            self._set_generation(number, steward=replace(generation.steward, forked_at=self.now))

    # --- what should be ---

    def keep_up(self) -> None:
        self._keep_phase()
        for number in sorted(self.fleet.generations):
            generation = self.fleet.generations[number]
            if self.fleet.phase is Phase.RUNNING and not generation.draining:
                self._keep_number(number)
                self._note_ready(number)
            else:
                self._wind_down(number)
            self._keep_steward(number)
        if self.fleet.phase is not Phase.RUNNING and not self.fleet.generations:
            self.actions.append(Exit(self.fleet.exit_status))

    def _keep_phase(self) -> None:
        fleet = self.fleet
        if fleet.phase is Phase.DRAINING:
            patience_s = max((g.limits.shutdown_timeout_s for g in fleet.generations.values()), default=0.0)
            if self.now - fleet.phase_since >= patience_s and fleet.workers:
                self._advance(Phase.STOPPING, f"workers are still busy after {patience_s:g} s")

    def _keep_number(self, number: int) -> None:
        generation = self.fleet.generations[number]
        staying = [worker for worker in self.fleet.workers_of(number) if not worker.told]
        for worker in sorted(staying, key=lambda worker: worker.slot)[generation.target :]:
            if (
                worker.pid
            ):  # else it is told after its fork: a signal to 0 would reach the whole process group
                self._tell(worker, signal.SIGTERM)
        if self.now < generation.fork_at:
            return
        free = (slot for slot in range(self.fleet.max_slots) if slot not in self.fleet.workers)
        for slot, _ in zip(free, range(generation.target - len(staying)), strict=False):
            incarnation = self.fleet.incarnations_made + 1
            worker = Worker(slot, number, incarnation)
            self._set(incarnations_made=incarnation, workers={**self.fleet.workers, slot: worker})
            self.actions.append(ForkWorker(number, slot, incarnation))

    def _note_ready(self, number: int) -> None:
        generation = self.fleet.generations[number]
        ready = sum(worker.ready for worker in self.fleet.workers_of(number) if not worker.told)
        if generation.was_ready or ready < generation.target:
            return
        self._set_generation(number, was_ready=True)
        if self._is_starting(number):
            for older in list(self.fleet.generations.values()):
                if older.number != number:
                    self._set_generation(older.number, draining=True)
            self._end_reload(f"reloaded: {ready} new workers are ready, the old ones finish what they run")
        else:
            self.actions.append(NotifySystemd("READY=1"))
            self._log(f"ready: {ready} workers")

    def _wind_down(self, number: int) -> None:
        stopping = self.fleet.phase is Phase.STOPPING
        self._tell_workers(number, signal.SIGQUIT if stopping else signal.SIGTERM)
        for worker in self.fleet.workers_of(number):
            if worker.told == signal.SIGQUIT and self._late_by(worker.told_at) > QUIT_GRACE_S:
                self._log(
                    f"killing worker {worker.slot} (pid {worker.pid}): it does not stop", LogLevel.ERROR
                )
                self._tell(worker, signal.SIGKILL, killed_as=FailureKind.SHUTDOWN)
        generation = self.fleet.generations[number]
        if self.fleet.workers_of(number):
            return
        if generation.empty_since is None:
            self._set_generation(number, empty_since=self.now)
            generation = self.fleet.generations[number]
        waits = bool(generation.bereaved or generation.lost)
        if waits and self.now - (generation.empty_since or self.now) < FAREWELL_S:
            return
        if waits:
            self._log(
                "what the dead workers held is left to its lease: the database is out of reach",
                LogLevel.WARNING,
            )
            self._set_generation(number, bereaved=(), lost=())
        self._dismiss_steward(number)

    def _dismiss_steward(self, number: int) -> None:
        steward = self.fleet.generations[number].steward
        if not steward.pid and not steward.being_forked:
            self._set(generations={n: g for n, g in self.fleet.generations.items() if n != number})
        elif steward.pid and not steward.told:
            # Not SIGTERM: a service manager may send that to every process at once.
            self.actions.append(SendSignal(steward.pid, signal.SIGQUIT))
            told = replace(steward, told=signal.SIGQUIT, told_at=self.now)
            self._set_generation(number, steward=told)
        elif steward.told == signal.SIGQUIT and self._late_by(steward.told_at) > QUIT_GRACE_S:
            self.actions.append(SendSignal(steward.pid, signal.SIGKILL))
            self._set_generation(number, steward=replace(steward, told=signal.SIGKILL))

    def _keep_steward(self, number: int) -> None:
        generation = self.fleet.generations.get(number)
        if generation is None or generation.steward.pid or generation.steward.being_forked:
            return
        if generation.steward.told or self.now < generation.steward.fork_at:
            return
        self._set_generation(number, steward=replace(generation.steward, being_forked=True))
        self.actions.append(ForkSteward(number))

    # --- small steps ---

    def _tell_workers(self, number: int, signum: int) -> None:
        """Each signal once; QUIT after TERM, and nothing after QUIT but KILL."""
        for worker in self.fleet.workers_of(number):
            if worker.pid and worker.told not in (signum, signal.SIGQUIT, signal.SIGKILL):
                self._tell(worker, signum)

    def _tell(self, worker: Worker, signum: int, **changes: Any) -> None:
        self.actions.append(SendSignal(worker.pid, signum))
        self._set_worker(worker.slot, told=signum, told_at=self.now, **changes)

    def _log(self, message: str, level: LogLevel = LogLevel.INFO) -> None:
        self.actions.append(WriteLog(level, message))

    def _set(self, **changes: Any) -> None:
        self.fleet = replace(self.fleet, **changes)

    def _set_generation(self, number: int, **changes: Any) -> None:
        changed = replace(self.fleet.generations[number], **changes)
        self._set(generations={**self.fleet.generations, number: changed})

    def _postpone_forks(self, number: int, until: float) -> None:
        """There are several reasons to wait, and none shortens the wait for another."""
        self._set_generation(number, fork_at=max(until, self.fleet.generations[number].fork_at))

    def _set_worker(self, slot: int, **changes: Any) -> Worker:
        changed = replace(self.fleet.workers[slot], **changes)
        self._set(workers={**self.fleet.workers, slot: changed})
        return changed

    def _remove_worker(self, slot: int) -> None:
        self._set(workers={s: worker for s, worker in self.fleet.workers.items() if s != slot})


def _lost_worker(worker: Worker, event: WorkerExited) -> LostWorker:
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
    )
