"""What breaks things: carries out the planned faults, and notes when each began and when it was taken back."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import psutil
import psycopg

from tests.chaos.arena import Arena
from tests.chaos.clock import boottime
from tests.chaos.deeds import DEEDS, OF_ALL, NoVictim, Pids
from tests.chaos.history import Fault
from tests.chaos.kinds import BY_NAME, LEASE_S, SWEEP_S, Lane
from tests.chaos.schedule import Planned

LOOK_S = 0.05
STANDSTILL = "the machine stood still"
STANDSTILL_S = 0.4  # between two looks: the machine has not let us run


class Nemesis:
    def __init__(self, arena: Arena, planned: Sequence[Planned]) -> None:
        self._arena = arena
        self._planned = planned
        self._faults: list[Fault] = []
        self._over = threading.Event()
        self._started_at = boottime()

    def storm(self) -> list[Fault]:
        """Everything that was planned; afterwards everything works again. Gives what was done.

        What lasts is done by the calling thread: a server ends with the thread that started it.
        """
        with ThreadPoolExecutor() as threads:
            quick = threads.submit(self._lane, Lane.QUICK)
            watch = threads.submit(self._watch_the_machine)
            try:
                self._lane(Lane.SLOW)
                quick.result()
            finally:
                self._over.set()
            watch.result()
        return sorted(self._faults, key=lambda fault: fault.at)

    def _lane(self, lane: Lane) -> None:
        for planned in self._planned:
            if BY_NAME[planned.kind].lane is not lane:
                continue
            wait_s = self._started_at + planned.at_s - boottime()
            if self._over.wait(max(0.0, wait_s)):
                return
            at = boottime()
            host = self._arena.hosts[planned.host]
            with contextlib.suppress(NoVictim, psutil.NoSuchProcess, ProcessLookupError, psycopg.Error):
                pids = DEEDS[planned.kind](self._arena, host, planned)
                self._note(planned.kind, at, None if planned.kind in OF_ALL else host.name, pids)

    def _note(self, name: str, at: float, host: str | None, pids: Pids) -> None:
        kind = BY_NAME[name]
        self._faults.append(
            Fault(
                kind=name,
                at=at,
                until=boottime() + kind.aftermath_s,
                recovery_s=kind.recovery_s,
                host=host,
                pids=pids,
                reruns=kind.reruns,
                counts_from_its_start=kind.counts_from_its_start,
                pauses=kind.pauses,
                disconnects=kind.disconnects,
                stalls=kind.stalls,
                keeps_working=kind.keeps_working,
            )
        )

    def _watch_the_machine(self) -> None:
        """A machine that stands still is a fault that nobody planned."""
        last = boottime()
        while not self._over.wait(LOOK_S):
            now = boottime()
            if now - last > STANDSTILL_S:
                recovery_s = LEASE_S + SWEEP_S
                self._faults.append(Fault(STANDSTILL, last, now, recovery_s, pauses=True, stalls=True))
            last = now
