"""A fleet while `fleet.decide` works on it: its new state, the actions so far, and the steps that rules use."""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import Any

from reproq_prefork.fleet.actions import AbandonCheck, Action, NotifySystemd, SendSignal, WriteLog
from reproq_prefork.fleet.state import Fleet, FleetWorker, Phase, Reload
from reproq_prefork.text.log import LogLevel


class Draft:
    def __init__(self, fleet: Fleet, now: float) -> None:
        """`now`: seconds of CLOCK_BOOTTIME."""
        self.fleet = fleet
        self.now = now
        self.actions: list[Action] = []

    def late_by(self, due_at: float) -> float:
        return self.now - max(due_at, self.fleet.woke_at)

    def advance(self, phase: Phase, why: str) -> None:
        """Phases only advance."""
        if phase <= self.fleet.phase:
            return
        if self.fleet.phase is Phase.RUNNING:
            self.actions.append(NotifySystemd("STOPPING=1"))
        if self.fleet.checking:
            self.actions.append(AbandonCheck())
        self.set(phase=phase, phase_since=self.now, checking=False, reload=Reload.NONE, reload_again=False)
        self.log(f"{'draining' if phase is Phase.DRAINING else 'stopping at once'}: {why}")

    def signal_workers(self, number: int, signum: int) -> None:
        """Send each signal once: QUIT may follow TERM, and only KILL may follow QUIT."""
        for worker in self.fleet.workers_of(number):
            if worker.pid and worker.told not in (signum, signal.SIGQUIT, signal.SIGKILL):
                self.signal_worker(worker, signum)

    def signal_worker(self, worker: FleetWorker, signum: int, **changes: Any) -> None:
        self.actions.append(SendSignal(worker.pid, signum))
        self.set_worker(worker.slot, told=signum, told_at=self.now, **changes)

    def log(self, message: str, level: LogLevel = LogLevel.INFO) -> None:
        self.actions.append(WriteLog(level, message))

    def set(self, **changes: Any) -> None:
        self.fleet = replace(self.fleet, **changes)

    def set_generation(self, number: int, **changes: Any) -> None:
        changed = replace(self.fleet.generations[number], **changes)
        self.set(generations={**self.fleet.generations, number: changed})

    def postpone_forks(self, number: int, until: float) -> None:
        """Fork nothing before `until`. Of several reasons to wait, none shortens the wait of another."""
        self.set_generation(number, fork_at=max(until, self.fleet.generations[number].fork_at))

    def set_worker(self, slot: int, **changes: Any) -> FleetWorker:
        changed = replace(self.fleet.workers[slot], **changes)
        self.set(workers={**self.fleet.workers, slot: changed})
        return changed

    def remove_worker(self, slot: int) -> None:
        self.set(workers={s: worker for s, worker in self.fleet.workers.items() if s != slot})
