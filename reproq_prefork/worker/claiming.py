"""How a worker claims: in the statement that records ends, or, after an error, one run at a time."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import NamedTuple

from reproq_prefork.errors import ReproqError
from reproq_prefork.executors.program_output import MAX_MESSAGE_CHARS
from reproq_prefork.model.outcome import Failure, FailureKind
from reproq_prefork.model.run import ClaimedRun, UnreadableRun
from reproq_prefork.model.settlement import RetryPolicy, Settlement, handed_back, settle
from reproq_prefork.store.outcomes import (
    ConnectionLost,
    ReplyUnreadable,
    StatementRefused,
    StatementTimedOut,
    ValueRefused,
)
from reproq_prefork.store.worker_store import Claim
from reproq_prefork.text.log import Log
from reproq_prefork.unix.panel import WorkerPanel
from reproq_prefork.unix.scoreboard import boottime_ns
from reproq_prefork.worker.claim_position import ClaimPosition
from reproq_prefork.worker.link import Link
from reproq_prefork.worker.lone_claims import LoneClaims
from reproq_prefork.worker.recording import Recording

SUSPECT_DELAY_S = 1.0  # other runs are claimed in the meantime
SUSPECT_S = 60.0  # how long runs are claimed one by one: a claim of many would time out at the suspect again


class LeaseLost(ReproqError):
    """The lease of this worker has ended: the runs that it held do not belong to it any more."""


class Turn(NamedTuple):
    """The result of a turn. `more`: other runs may be due.

    `unreadable`: ends of runs that were claimed together with `runs` but cannot be read. The caller records them
    together with the ends of `runs`.
    """

    runs: Sequence[ClaimedRun] = ()
    more: bool = False
    unreadable: Sequence[Settlement] = ()


class Claiming:
    """Each public method is one step of the ledger's loop. It returns the result that ends the turn, or None if
    there is more to do. Raises `ConnectionLost` and `LeaseLost`.

    `is_wary`: the connection was lost during a claim, or a claim took too long.
    """

    def __init__(
        self,
        *,
        link: Link,
        recording: Recording,
        panel: WorkerPanel,
        policy: RetryPolicy,
        believed_lease_ns: int,
        log: Log,
    ) -> None:
        self._link = link
        self._recording = recording
        self._panel = panel
        self._policy = policy
        self._believed_lease_ns = believed_lease_ns
        self._log = log
        self._position = ClaimPosition()
        self._suspect: int | None = None  # the run that could not be read in time, once
        self._suspect_until = 0.0
        self._lone_claims = LoneClaims(log)
        self.is_wary = False

    @property
    def goes_alone(self) -> bool:
        """Whether to claim runs one by one."""
        suspects = self._suspect is not None and time.monotonic() < self._suspect_until
        return self.is_wary or suspects or self._lone_claims.are_needed()

    def finish_and_claim(self, max_runs: int) -> Turn | None:
        """Record the ended attempts and claim up to `max_runs` runs, in one statement."""
        recording = self._recording
        ended = recording.ended
        places = self._position.places(time.monotonic()) if max_runs else {}
        sent_ns = boottime_ns()
        try:
            claim = self._link.store.finish_and_claim(ended, max_runs=max_runs, places=places)
        except StatementRefused as refused:
            self.is_wary = isinstance(refused, StatementTimedOut)
            recording.refusal = refused
            recording.set_apart()
            return None
        except ValueRefused as refused:
            self._log.warning("the database refused a value", reason=str(refused))
            self._position.forget()
            self.is_wary = True
            recording.set_apart()
            return None
        recording.ended = ()
        self._link.answered()
        recording.warn_of_the_late(ended, claim.settled)
        unreadable = tuple(self._unread(each.run, each.why, retry=False) for each in claim.unreadable)
        turn = Turn(self._claimed(claim, sent_ns), claim.found >= max_runs, unreadable)
        if unreadable and not turn.runs:
            recording.ended = unreadable
            return None
        if turn.more or not places:
            return turn
        # There are too few runs after this place. A claim from the head finds those before it.
        self._position.forget()
        return turn._replace(more=True) if turn.runs else None

    def claim_one(self) -> Turn | None:
        """Claim one run with one statement, then read it with another. So an error shows which run causes it.

        Used after a refused claim and after a lost connection. If a payload takes longer to read than a statement
        may, the connection is lost the same way each time. Such a run must not stay at the head of the queue.
        """
        self.is_wary = False
        sent_ns = boottime_ns()
        try:
            alone = self._lone_claims.claim(self._link.store)
        except (StatementRefused, ValueRefused) as refused:
            self._recording.refusal = refused
            return None
        if alone is None:
            return Turn()
        self._held(alone.holds_lease, sent_ns)
        if alone.run is None:
            return Turn()
        read = self._read(alone.run)
        if isinstance(read, ClaimedRun):
            return Turn((read,), more=True)
        if read is not None:
            self._recording.ended = (read,)
        return None

    def _read(self, run: ClaimedRun) -> ClaimedRun | Settlement | None:
        """Read a run that was claimed alone, or return its end. None: another worker has it now."""
        try:
            read = self._link.store.read_claimed(run.token)
        except (ReplyUnreadable, ValueRefused) as unreadable:
            return self._unread(run, str(unreadable), retry=False)
        except ConnectionLost as lost:
            self._recording.ended = (self._not_read(run, lost),)
            raise
        except StatementTimedOut as slow:
            return self._not_read(run, slow)
        except StatementRefused:
            return handed_back(*run.token)
        return self._unread(read.run, read.why, retry=False) if isinstance(read, UnreadableRun) else read

    def _claimed(self, claim: Claim, sent_ns: int) -> Sequence[ClaimedRun]:
        self._held(claim.holds_lease, sent_ns if claim.runs else None)
        if claim.runs:
            now_ns, now = boottime_ns(), time.monotonic()
            self._position.claimed(claim.runs, now - (now_ns - sent_ns) / 1e9, now)
        return claim.runs

    def _held(self, holds_lease: bool, claimed_ns: int | None) -> None:
        """`claimed_ns`: when the claim was sent, if it returned runs. Their lease begins at that moment."""
        if not holds_lease:
            raise LeaseLost("the worker's lease has ended")
        if claimed_ns is not None:
            self._panel.update(lease_end_ns=claimed_ns + self._believed_lease_ns)

    def _not_read(self, run: ClaimedRun, trouble: ReproqError) -> Settlement:
        """The row or the connection may be the cause. The second time in a row counts as an attempt."""
        self.is_wary = True
        if self._suspect != run.id:
            self._suspect, self._suspect_until = run.id, time.monotonic() + SUSPECT_S
            return handed_back(*run.token)._replace(delay_s=SUSPECT_DELAY_S)
        self._suspect = None
        return self._unread(run, str(trouble), retry=True)

    def _unread(self, run: ClaimedRun, why: str, *, retry: bool) -> Settlement:
        message = f"the run cannot be read: {why}"[:MAX_MESSAGE_CHARS]
        if not retry:
            self._log.warning(f"run {run.id} failed: it cannot be read", reason=why)
        failure = Failure(FailureKind.UNREADABLE, message, retry=retry)
        settlement = settle(run, failure, self._policy, random.random())
        assert settlement is not None
        # If this is the final end, no process of the task has announced it.
        return settlement._replace(finish_due=run.task_path is not None)
