"""Which workers a steward is responsible for, as the scoreboard shows."""

from __future__ import annotations

from collections.abc import Mapping

from reproq_prefork.unix import proc
from reproq_prefork.unix.scoreboard import Scoreboard, WorkerRecord


def workers_of(scoreboard: Scoreboard, steward: int) -> Mapping[int, WorkerRecord]:
    """The records of one steward's workers, by slot. A torn record is left out."""
    records = ((slot, scoreboard.read_worker(slot)) for slot in range(scoreboard.slots))
    return {
        slot: record
        for slot, record in records
        if record is not None and record.incarnation and record.steward == steward
    }


def live_workers_of(scoreboard: Scoreboard, steward: int) -> Mapping[int, WorkerRecord]:
    """Those workers of one steward that are registered and alive, by slot."""
    return {
        slot: record
        for slot, record in workers_of(scoreboard, steward).items()
        if record.is_registered and proc.is_alive(record.process)
    }
