"""Claims one run at a time after a claim of many was refused. So it finds the run that the server refuses.

A run is FAILED by its id if the server refuses it again and again: because of a value in the run, or although
another run can be claimed. If it cannot be ended either, it is left alone for a while, so that others can be
claimed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from reproq_prefork.errors import ReproqError
from reproq_prefork.executors.program_output import MAX_MESSAGE_CHARS
from reproq_prefork.store.outcomes import StatementRefused, ValueRefused
from reproq_prefork.store.worker_store import ClaimedAlone, WorkerStore
from reproq_prefork.text.log import Log

MAX_REFUSALS = 3  # of one run, before the run counts as the cause
RUNS_TRIED = 50  # in one call; the next call continues after them
SUSPECT_S = 10.0
LEFT_ALONE_S = 60.0


class LoneClaims:
    """What one worker knows about runs whose claim the server has refused."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._refusals: dict[int, int] = {}
        self._suspect_until = 0.0
        self._left_alone_until: dict[int, float] = {}
        self._refused: dict[int, ReproqError] = {}  # since the last successful claim

    def are_needed(self) -> bool:
        """Whether a claim of many could include a run that was refused."""
        return bool(
            (self._refusals and time.monotonic() < self._suspect_until)
            or (self._left_alone_until and self._left_alone())
        )

    def claim(self, store: WorkerStore) -> ClaimedAlone | None:
        """Claim the next run that can be claimed. None: nothing else is due.

        Raises the errors of the store; a refusal only if no other run could be claimed either.
        """
        refused, tried = self._refused, 0
        while True:
            run_id = store.next_due_run(self._left_alone() | refused.keys())
            if run_id is None and refused:
                self._refused = {}
                raise next(iter(refused.values()))
            if run_id is None:
                self._refusals.clear()
                return None
            try:
                claimed = store.claim_run(run_id)
            except ValueRefused as refusal:
                refused[run_id] = refusal
                self._count({run_id: refusal}, store)
                continue
            except StatementRefused as refusal:
                refused[run_id] = refusal
                tried += 1
                if tried >= RUNS_TRIED:
                    raise
                continue
            if claimed.holds_lease and claimed.run is None:
                continue  # another worker has it
            self._refusals.pop(run_id, None)
            self._refused = {}
            # These were refused but another one was not, so the database is not the cause.
            self._count(
                {
                    each: why
                    for each, why in refused.items()
                    if isinstance(why, StatementRefused) and not why.is_about_locks
                },
                store,
            )
            return claimed

    def _count(self, refused: Mapping[int, ReproqError], store: WorkerStore) -> None:
        """Count one more refusal of each of these runs, which are the cause of it."""
        if time.monotonic() >= self._suspect_until:
            self._refusals.clear()
        for run_id, refusal in refused.items():
            self._suspect_until = time.monotonic() + SUSPECT_S
            self._refusals[run_id] = self._refusals.get(run_id, 0) + 1
            if self._refusals[run_id] >= MAX_REFUSALS:
                del self._refusals[run_id]
                self._end(store, run_id, refusal)

    def _end(self, store: WorkerStore, run_id: int, refusal: ReproqError) -> None:
        try:
            store.fail_run(run_id, f"the run cannot be claimed: {refusal}"[:MAX_MESSAGE_CHARS])
        except (StatementRefused, ValueRefused) as error:
            self._left_alone_until[run_id] = time.monotonic() + LEFT_ALONE_S
            self._log.error(
                f"run {run_id} can be neither claimed nor ended; it is left alone for {LEFT_ALONE_S:g} s",
                reason=str(refusal),
                end_refused=str(error),
            )
        else:
            self._log.error(f"run {run_id} failed: it cannot be claimed", reason=str(refusal))

    def _left_alone(self) -> set[int]:
        now = time.monotonic()
        self._left_alone_until = {
            run_id: until for run_id, until in self._left_alone_until.items() if until > now
        }
        return set(self._left_alone_until)
