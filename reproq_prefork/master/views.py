"""Turns the records of the scoreboard into what `fleet.decide` needs."""

from __future__ import annotations

from reproq_prefork.fleet.events import ScoreboardRead, WorkerView
from reproq_prefork.fleet.state import Fleet
from reproq_prefork.unix.scoreboard import Scoreboard, WorkerRecord, WorkerState, boottime_ns


class Views:
    def __init__(self, scoreboard: Scoreboard) -> None:
        self._scoreboard = scoreboard
        # The incarnation whose record could last be read in a slot, and when.
        self._read_at: dict[int, tuple[int, float]] = {}

    def of(self, fleet: Fleet) -> ScoreboardRead:
        views = {}
        for slot, worker in fleet.workers.items():
            record = self._scoreboard.read_worker(slot)
            if record is not None:
                views[slot] = self._view(slot, worker.incarnation, record)
                if record.incarnation == worker.incarnation:
                    self._read_at[slot] = (worker.incarnation, boottime_ns() / 1e9)
            else:
                views[slot] = self._torn_view(slot, worker.incarnation, is_ready=worker.ready)
        heartbeats = {}
        for number in fleet.generations:
            steward = self._scoreboard.read_steward(self._scoreboard.steward_place(number))
            if steward is not None:
                heartbeats[number] = steward.heartbeat_ns / 1e9
        return ScoreboardRead(views, heartbeats)

    def _view(self, slot: int, incarnation: int, record: WorkerRecord) -> WorkerView:
        if record.incarnation != incarnation:
            return WorkerView(
                incarnation, booting=True, registered=False, deadline_at=None, lease_ends_at=None
            )
        busy = record.state is WorkerState.BUSY
        return WorkerView(
            incarnation,
            booting=record.state is WorkerState.BOOTING,
            registered=record.is_registered,
            deadline_at=record.deadline_ns / 1e9 if busy and record.deadline_ns else None,
            lease_ends_at=self._scoreboard.lease_end_ns(slot, record) / 1e9 if busy else None,
            seen_at=None if busy else record.seen_ns / 1e9,
            connecting=record.state is WorkerState.CONNECTING,
        )

    def _torn_view(self, slot: int, incarnation: int, *, is_ready: bool) -> WorkerView:
        """The view of a worker whose record cannot be read.

        Either the worker was stopped inside a write of its record, and so shows no sign of life. Or it boots in
        the slot of a worker that died inside a write.
        """
        read_incarnation, read_at = self._read_at.get(slot, (0, 0.0))
        is_its_own = read_incarnation == incarnation
        return WorkerView(
            incarnation,
            booting=not is_its_own,
            registered=is_ready,
            deadline_at=None,
            lease_ends_at=None,
            seen_at=read_at if is_its_own else None,
        )
