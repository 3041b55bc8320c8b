"""Executes a steward's statement for many runs, and for fewer runs if the server refuses it.

One row that the server refuses to change (because of a trigger, a constraint, or a value that breaks one) would
keep all other runs of its statement RUNNING without a holder. So the runs are tried in halves until the refused
one is alone. It is tried again, less and less often. After a while it gets the smallest possible end
(`store/sql/steward/fail_lost_run.sql`). It is logged once.

If the server refuses everything, no run is tried alone: the error is raised, and the duty is done later.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from reproq_prefork.errors import ReproqError
from reproq_prefork.model.run import Token
from reproq_prefork.store.outcomes import ServerShort, StatementRefused, ValueRefused
from reproq_prefork.store.steward_store import SWEEP_BATCH, ResetRun, StewardStore
from reproq_prefork.text.log import Log

Change = Callable[[Collection[int] | None], tuple[ResetRun, ...]]

FIRST_WAIT_S = 1.0  # after the first refusal of a run; doubles with each refusal
LONGEST_WAIT_S = 60.0
DOUBLINGS = 10  # already past the longest wait; refusals may go on for days, and a float would overflow
PATIENCE_S = 10.0  # before a run gets its smallest end
BUDGET_S = 1.0  # for one call, because the leases of the host must be renewed in between
CAREFUL_S = 60.0  # after a refusal, the statement for all runs is not tried for so long
FORGOTTEN_S = 600.0  # a run that did not come again for so long is not held any more


@dataclass(slots=True)
class _Refusals:
    """The refusals of one run."""

    since_s: float
    next_at: float
    count: int = 0


@dataclass(frozen=True, slots=True)
class Done:
    """`runs` were changed. `is_all`: no more are left. `is_apart`: they were changed in pieces."""

    runs: tuple[ResetRun, ...]
    is_all: bool = True
    is_apart: bool = False


class OneByOne:
    """What a steward knows about runs that it cannot change, for all duties. Times are in monotonic seconds."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._refused: dict[Token, _Refusals] = {}
        self._careful_until = 0.0

    def do(
        self, store: StewardStore, change: Change, runs: Callable[[], Iterable[Token]], *, may_fail: bool
    ) -> Done:
        """Call `change(None)` for all runs. If that is refused, call `change(ids)` for parts of `runs()`.

        `may_fail`: their holder is lost, so a run that cannot be put back is FAILED in the end. Raises the error
        of the store if the server refuses everything.
        """
        if time.monotonic() >= self._careful_until:
            try:
                return Done(change(None))
            except (StatementRefused, ValueRefused):
                change(())  # a test: if the server refuses this, it refuses everything
                self._careful_until = time.monotonic() + CAREFUL_S
        pieces, is_all = self._pieces(runs())
        changed: list[ResetRun] = []
        budget_ends_at = time.monotonic() + BUDGET_S
        while pieces and time.monotonic() < budget_ends_at:
            piece = pieces.pop()
            try:
                changed += change([run_id for run_id, _claim in piece])
            except (StatementRefused, ValueRefused) as error:
                change(())
                if len(piece) > 1:
                    half = len(piece) // 2
                    pieces += [piece[half:], piece[:half]]
                    continue
                failed = self._was_refused(store, piece[0], error, may_fail=may_fail)
                changed += failed
                is_all = is_all and bool(failed)
            else:
                for token in piece:
                    self._refused.pop(token, None)
        return Done(tuple(changed), is_all=is_all and not pieces, is_apart=True)

    def _pieces(self, tokens: Iterable[Token]) -> tuple[list[list[Token]], bool]:
        """Which runs to try together, the last piece first. Runs that were refused before are tried alone, and
        last.

        The second value says whether these are all: some may have to wait.
        """
        now = time.monotonic()
        self._refused = {t: r for t, r in self._refused.items() if r.next_at > now - FORGOTTEN_S}
        fresh: list[Token] = []
        pieces: list[list[Token]] = []
        is_all = True
        for token in tokens:
            refusals = self._refused.get(token)
            if refusals is None:
                fresh.append(token)
            elif now >= refusals.next_at:
                pieces.append([token])
            else:
                is_all = False
        pieces += [fresh[start : start + SWEEP_BATCH] for start in range(0, len(fresh), SWEEP_BATCH)]
        return pieces, is_all

    def _was_refused(
        self, store: StewardStore, token: Token, error: ReproqError, *, may_fail: bool
    ) -> tuple[ResetRun, ...]:
        """Note the refusal. Returns the run if it could be ended as FAILED."""
        now = time.monotonic()
        refusals = self._refused.setdefault(token, _Refusals(now, now))
        if not store.is_free(*token):  # somebody has locked the row, so the row is not the cause
            refusals.next_at = now + FIRST_WAIT_S
            return ()
        refusals.count += 1
        wait_s = FIRST_WAIT_S * 2.0 ** min(refusals.count - 1, DOUBLINGS)
        refusals.next_at = now + min(wait_s, LONGEST_WAIT_S)
        if refusals.count == 1:
            self._log.warning(
                f"run {token[0]} cannot be put back: the database refuses to change it, but accepts other changes;"
                " it will be tried again",
                reason=str(error),
            )
        is_hopeless = refusals.count > 2 and now >= refusals.since_s + PATIENCE_S
        if not may_fail or not is_hopeless or isinstance(error, ServerShort):
            return ()
        for reason in (f"the database refused to put the run back: {error}", None):
            try:
                return store.fail_lost_run(*token, reason)
            except (StatementRefused, ValueRefused):
                continue
        return ()
