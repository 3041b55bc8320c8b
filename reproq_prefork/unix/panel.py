"""A worker's own record on the scoreboard, as the worker writes and reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from reproq_prefork.unix.scoreboard import (
    MAX_UNRECORDED,
    LeaseRecord,
    Scoreboard,
    UnrecordedRecord,
    WorkerRecord,
    WorkerState,
    boottime_ns,
)


class WorkerPanel:
    """A worker's own view: its record, and what the steward and the master have written for it."""

    def __init__(self, scoreboard: Scoreboard, slot: int, record: WorkerRecord) -> None:
        self._scoreboard = scoreboard
        self._slot = slot
        self._record = record
        self._started: tuple[int, int, int, int, int, int] | None = (
            None  # set by `start`, and not in the record yet
        )
        self.show_unrecorded(())
        self.update()

    @property
    def record(self) -> WorkerRecord:
        if self._started is not None:
            run_id, claim, attempt, started_ns, deadline_ns, waiting = self._started
            self._record = replace(
                self._record,
                state=WorkerState.BUSY,
                seen_ns=started_ns,
                run_id=run_id,
                claim=claim,
                attempt=attempt,
                started_ns=started_ns,
                deadline_ns=deadline_ns,
                waiting=waiting,
            )
            self._started = None
        return self._record

    def update(self, **changes: Any) -> None:
        """Change the record. Without changes, this is a sign of life."""
        self._record = replace(self.record, seen_ns=boottime_ns(), **changes)
        self._scoreboard.write_worker(self._slot, self._record)

    def show_life(self, for_s: float) -> bool:
        """Give a sign of life that counts for `for_s`. Returns True, because a worker may always go on."""
        self._record = replace(self.record, seen_ns=boottime_ns() + int(for_s * 1e9))
        self._scoreboard.write_worker(self._slot, self._record)
        return True

    def start(
        self, run_id: int, claim: int, attempt: int, *, started_ns: int, deadline_ns: int, waiting: int = 0
    ) -> None:
        """Show that the worker executes this run from `started_ns`, which is now. `deadline_ns` 0: none."""
        self._started = (run_id, claim, attempt, started_ns, deadline_ns, waiting)
        self._scoreboard.write_run(
            self._slot,
            run_id,
            claim,
            attempt,
            started_ns=started_ns,
            deadline_ns=deadline_ns,
            waiting=waiting,
        )

    def show_unrecorded(self, runs: Sequence[tuple[int, int]]) -> None:
        """Show the first of these runs as started and not recorded, whichever run is shown from now on."""
        first = tuple(runs[:MAX_UNRECORDED])
        self._scoreboard.write_unrecorded(self._slot, UnrecordedRecord(self._record.incarnation, first))

    def lease(self) -> LeaseRecord:
        """What the steward last wrote about this worker."""
        return self._scoreboard.lease_of(self._slot, self._record)

    @property
    def claimed_lease_end_ns(self) -> int:
        """Until when a task may run at least, according to the latest claim or the registration."""
        return self._record.lease_end_ns

    def lease_end_ns(self) -> int:
        """Until when a task may run."""
        return self._scoreboard.lease_end_ns(self._slot, self._record)

    def is_quiet(self) -> bool:
        return self._scoreboard.read_master().quiet
