"""A worker's dealings with the database, through everything that can go wrong with them.

An error says what is known. A refused statement changed nothing, and is sent again. After a lost connection it
is unknown whether the statement was committed, so the worker first sees its old server process gone, then asks
which runs it holds: a result that is not recorded yet is recorded again under the same token, and a claim
whose reply was lost is handed back.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from reproq_prefork.batching import Frontier
from reproq_prefork.errors import DatabaseUnavailable, ReproqError
from reproq_prefork.executors.output import MAX_MESSAGE_CHARS
from reproq_prefork.log import Log
from reproq_prefork.lone_claims import MAX_REFUSALS, LoneClaims
from reproq_prefork.orders import Orders
from reproq_prefork.scoreboard import WorkerPanel, WorkerState, boottime_ns
from reproq_prefork.settlement import settle
from reproq_prefork.signals import wait_readable
from reproq_prefork.store.connection import (
    ConnectionLost,
    ReplyUnreadable,
    StatementRefused,
    StatementTimedOut,
    ValueRefused,
    reconnect_delays_s,
)
from reproq_prefork.store.worker_store import Claim, WorkerStore
from reproq_prefork.task_run import (
    ClaimedRun,
    Failure,
    FailureKind,
    RetryPolicy,
    Settlement,
    UnreadableRun,
    handed_back,
)

POOLED_RECHECK_S = 1.0  # behind a pooler a lost claim may be committed after it was asked for
SUSPECT_DELAY_S = 1.0  # others are claimed meanwhile
QUIT_PATIENCE_S = 3.0  # for recording what was handed back, while there is no connection


class LeaseLost(ReproqError):
    """This worker's lease has ended: what it held is no longer its own."""


class ToldToStop(ReproqError):
    """Told to stop while the database was out of reach: nothing more can be recorded."""


class Attempt(NamedTuple):
    """An attempt that has ended, and what is to be written about it."""

    run: ClaimedRun
    settlement: Settlement

    @property
    def token(self) -> tuple[int, int]:
        return self.run.token


class Turn(NamedTuple):
    """What a turn has got. `more`: there may be others that are due.

    `unreadable`: what was claimed with `runs` and cannot be run, and is to be recorded with their ends.
    """

    runs: Sequence[ClaimedRun] = ()
    more: bool = False
    unreadable: Sequence[Attempt] = ()


class Ledger:
    """Raises `LeaseLost` and `ToldToStop`; every other trouble with the database it waits out."""

    def __init__(
        self,
        *,
        connect: Callable[[], WorkerStore],
        panel: WorkerPanel,
        orders: Orders,
        policy: RetryPolicy,
        believed_lease_s: float,
        log: Log,
    ) -> None:
        self._connect = connect
        self._panel = panel
        self._orders = orders
        self._policy = policy
        self._believed_lease_ns = int(believed_lease_s * 1e9)
        self._log = log
        self._store: WorkerStore
        self._recheck_at: float | None = None
        self._quit_seen_at: float | None = None
        self._delays_s = reconnect_delays_s()
        self._frontier = Frontier()
        self._is_wary = False  # the connection was lost, or the time was up, with a claim on its way
        self._suspect: int | None = None  # the run whose payload was being read when that happened once more
        self._lone_claims = LoneClaims(log)
        self._refusals = 0  # of the statement that claims many, one after the other

    def open(self) -> None:
        """Connect and register."""
        self._open_connection()
        while True:
            sent_ns = boottime_ns()
            try:
                self._store.register()
                break
            except ConnectionLost:
                self._open_connection()
            except StatementRefused as refused:
                self._pause(refused, holding=False)
            except ValueRefused:
                # The id is there: an earlier try was committed, and its reply lost.
                if not self._store.reconnected():
                    raise LeaseLost("the lease ended before the worker had registered") from None
                break
        self._panel.update(
            lease_end_ns=sent_ns + self._believed_lease_ns, backend_pid=self._store.backend.pid
        )

    def turn(self, ended: Sequence[Attempt], *, max_runs: int) -> Turn:
        """Record the attempts that have ended and claim up to `max_runs` runs, in one statement."""
        if self._recheck_at is not None and time.monotonic() >= self._recheck_at:
            self._recheck_at = None
            ended = self._reconciled(ended)
        turn: Turn | None = None
        while turn is None:
            if max_runs > 0 and self._goes_in_steps():
                turn, ended = self._turn_in_steps(ended)
            else:
                turn, ended = self._turn_at_once(ended, max_runs)
        return turn

    def _goes_in_steps(self) -> bool:
        return self._is_wary or self._refusals >= MAX_REFUSALS or self._lone_claims.are_needed()

    def _turn_at_once(self, ended: Sequence[Attempt], max_runs: int) -> tuple[Turn | None, Sequence[Attempt]]:
        """`turn` by one statement. Without a turn it is to be made again, with what is still to be recorded."""
        places = self._frontier.places(time.monotonic()) if max_runs else {}
        sent_ns = boottime_ns()
        try:
            claim = self._store.finish_and_claim(_settlements(ended), max_runs=max_runs, places=places)
        except (ConnectionLost, StatementRefused, ValueRefused) as trouble:
            return self._not_done_at_once(ended, max_runs, trouble)
        self._delays_s = reconnect_delays_s()
        self._refusals = 0
        self._warn_of_the_late(ended, claim.settled)
        unreadable = tuple(self._unread(each.run, each.why, retry=False) for each in claim.unreadable)
        turn = Turn(self._claimed(claim, sent_ns), claim.found >= max_runs, unreadable)
        if unreadable and not turn.runs:
            return None, unreadable
        if turn.more or not places:
            return turn, ()
        # Behind the place there are not enough: what is before it is found from the head.
        self._frontier.forget()
        return (turn._replace(more=True) if turn.runs else None), ()

    def _not_done_at_once(
        self, ended: Sequence[Attempt], max_runs: int, trouble: ReproqError
    ) -> tuple[Turn | None, Sequence[Attempt]]:
        """What is done about trouble before the turn is made again."""
        match trouble:
            case ConnectionLost():
                ended = self._reconnect(ended, trouble)
                self._is_wary = True
            case StatementRefused():
                self._is_wary = isinstance(trouble, StatementTimedOut)
                self._refusals += 1
                self._pause(trouble, holding=bool(ended))
            case _:
                self._log.warning("the database refused a value", reason=str(trouble))
                self._frontier.forget()
                self._is_wary = True
                if max_runs == 0:
                    ended = self._recorded_in_steps(ended)
                    if not ended:
                        return Turn(), ()
                    self._pause(trouble, holding=True)
        return None, ended

    def record(self, ended: Sequence[Attempt]) -> bool:
        """Record these while a task runs, in a second or not at all. False: it did not succeed, or nobody knows.

        Nothing is waited for and nothing raised: this is called in the middle of a task. What is not recorded then
        is so by the next `turn`.
        """
        try:
            with self._store.in_haste():
                claim = self._store.finish_and_claim(_settlements(ended), max_runs=0)
        except (ConnectionLost, StatementRefused, ValueRefused):
            return False
        self._warn_of_the_late(ended, claim.settled)
        return True

    def _claimed(self, claim: Claim, sent_ns: int) -> Sequence[ClaimedRun]:
        self._held(claim.holds_lease, sent_ns if claim.runs else None)
        if claim.runs:
            now_ns, now = boottime_ns(), time.monotonic()
            self._frontier.claimed(claim.runs, now - (now_ns - sent_ns) / 1e9, now)
        return claim.runs

    def _held(self, holds_lease: bool, claimed_ns: int | None) -> None:
        """`claimed_ns`: when a claim that has got something was sent; its runs are leased from then on."""
        if not holds_lease:
            raise LeaseLost("the worker's lease has ended")
        if claimed_ns is not None:
            self._panel.update(lease_end_ns=claimed_ns + self._believed_lease_ns)

    def _warn_of_the_late(self, ended: Sequence[Attempt], settled: int) -> None:
        """What was to be handed back may have been so by the steward, and is no loss."""
        results = [attempt.run.id for attempt in ended if not attempt.settlement.refunded]
        late = len(results) - settled
        if late > 0 and len(results) == 1:
            self._log.warning("a result came too late: the run was no longer this worker's", run=results[0])
        elif late > 0:
            self._log.warning(
                "results came too late: their runs were no longer this worker's",
                late=late,
                of=len(results),
                first=results[0],
                last=results[-1],
            )

    def take_announcement(self) -> int | None:
        """A run whose end the application is to be told of, now this worker's for a minute. None: none, or
        the database has refused to say.

        For a worker that holds no run and has recorded all it held, as `announced` is.
        """
        try:
            return self._store.take_finish_due()
        except ConnectionLost as lost:
            self._reconnect((), lost)
        except (StatementRefused, ValueRefused) as refused:
            self._log.warning("the database does not say whose end is to be told", reason=str(refused))
        return None

    def announced(self, run_id: int) -> None:
        """The application has been told of the end of this run. Where that cannot be noted, it is told again."""
        try:
            self._store.clear_finish_due(run_id)
        except ConnectionLost as lost:
            self._reconnect((), lost)
        except (StatementRefused, ValueRefused) as refused:
            self._log.warning(
                "the application will be told again of the end of a run", run=run_id, reason=str(refused)
            )

    def leave(self) -> None:
        """Give up the registration, so that nobody has to wait for its end. A lost connection is no matter."""
        try:
            self._store.deregister()
        except (ConnectionLost, StatementRefused) as error:
            self._log.warning("the worker's registration is left to expire", reason=str(error))
            return
        finally:
            self._store.close()
        self._panel.update(state=WorkerState.STOPPED, run_id=0)

    def close(self) -> None:
        """End the connection of a worker that has no registration any more."""
        self._store.close()

    def _turn_in_steps(self, ended: Sequence[Attempt]) -> tuple[Turn | None, Sequence[Attempt]]:
        """The same as `turn` for one run, by a statement for each step, so that it is known which run is at fault.

        After a value was refused, and after a connection was lost: a payload that takes longer to read than a
        statement may is lost the same way each time, and must not stay at the head of the queue for it. Without a
        turn there is trouble that was dealt with, and what of it is still to be recorded.
        """
        self._is_wary = False
        self._refusals = 0
        ended = self._recorded_in_steps(ended)
        if ended:
            self.turn(ended, max_runs=0)
        run: ClaimedRun | None = None
        sent_ns = boottime_ns()
        try:
            alone = self._lone_claims.claim(self._store)
            if alone is None:
                return Turn(), ()
            self._held(alone.holds_lease, sent_ns)
            run = alone.run
            if run is None:
                return Turn(), ()
            read = self._store.read_claimed(run.token)
        except (ConnectionLost, StatementRefused, ValueRefused) as trouble:
            return None, self._after_trouble(run, trouble)
        if read is None:
            return None, ()
        if isinstance(read, UnreadableRun):
            return None, (self._unread(read.run, read.why, retry=False),)
        return Turn((read,), more=True), ()

    def _after_trouble(self, run: ClaimedRun | None, trouble: ReproqError) -> Sequence[Attempt]:
        """Wait it out; gives what is to be recorded. `run`: the one that was being read, None: there was none."""
        if run is not None and isinstance(trouble, ReplyUnreadable | ValueRefused):
            return (self._unread(run, str(trouble), retry=False),)
        if isinstance(trouble, ConnectionLost):
            return self._reconnect(() if run is None else (self._not_read(run, trouble),), trouble)
        if run is None:
            self._pause(trouble, holding=False)
            return ()
        if isinstance(trouble, StatementTimedOut):
            return (self._not_read(run, trouble),)
        return (Attempt(run, handed_back(run.id, run.claim)),)

    def _recorded_in_steps(self, ended: Sequence[Attempt]) -> Sequence[Attempt]:
        """Record all at once, or else each by itself. Gives what the next turn is to record: in place of a result
        that cannot be stored that this is so, and what met other trouble, which the turn waits out.
        """
        try:
            if ended:
                self._store.finish_and_claim(_settlements(ended), max_runs=0)
        except ValueRefused as unstorable:
            if len(ended) == 1:
                return (self._unstorable(ended[0], unstorable),)
        except (ConnectionLost, StatementRefused):
            return ended
        else:
            return ()
        left: list[Attempt] = []
        for attempt in ended:
            left += self._recorded_in_steps((attempt,))
        return left

    def _not_read(self, run: ClaimedRun, trouble: ReproqError) -> Attempt:
        """The row's fault, or the connection's: the second time in a row it counts as an attempt."""
        self._is_wary = True
        if self._suspect != run.id:
            self._suspect = run.id
            return Attempt(run, handed_back(run.id, run.claim)._replace(delay_s=SUSPECT_DELAY_S))
        self._suspect = None
        return self._unread(run, str(trouble), retry=True)

    def _unread(self, run: ClaimedRun, why: str, *, retry: bool) -> Attempt:
        message = f"the run cannot be read: {why}"[:MAX_MESSAGE_CHARS]
        if not retry:
            self._log.warning(f"run {run.id} failed: it cannot be read", reason=why)
        return self._settled(run, Failure(FailureKind.UNREADABLE, message, retry=retry))

    def _unstorable(self, ended: Attempt, reason: ValueRefused) -> Attempt:
        message = f"the database refused the result: {reason}"[:MAX_MESSAGE_CHARS]
        return self._settled(ended.run, Failure(FailureKind.UNUSABLE_OUTPUT, message))

    def _settled(self, run: ClaimedRun, failure: Failure) -> Attempt:
        settlement = settle(run, failure, self._policy, random.random())
        assert settlement is not None
        # No process of the task has told the application of it, if this is the end.
        return Attempt(run, settlement._replace(finish_due=run.task_path is not None))

    def _reconnect(self, ended: Sequence[Attempt], lost: ReproqError) -> Sequence[Attempt]:
        """Connect again and clear up; gives what is still to be recorded."""
        self._log.warning("the connection is lost", reason=str(lost))
        state = self._panel.record.state
        self._store.close()
        while True:
            self._open_connection(holding=bool(ended))
            try:
                self._store.end_previous_backend()
                ended = self._reconcile(ended)
                if not self._store.reconnected():
                    # Nobody took the runs over while the database was away: the results still count.
                    self._store.finish_and_claim(_settlements(ended), max_runs=0)
                    raise LeaseLost("the lease ended while the database was out of reach")
            except (ConnectionLost, StatementRefused, ValueRefused) as error:
                self._pause(error, holding=bool(ended))
                continue
            if self._store.backend.pooled:
                self._recheck_at = time.monotonic() + POOLED_RECHECK_S
            self._panel.update(state=state, backend_pid=self._store.backend.pid)
            self._log.info("connected again")
            return ended

    def _reconciled(self, ended: Sequence[Attempt]) -> Sequence[Attempt]:
        try:
            return self._reconcile(ended)
        except ConnectionLost as lost:
            return self._reconnect(ended, lost)
        except (StatementRefused, ValueRefused):
            self._recheck_at = time.monotonic() + POOLED_RECHECK_S
            return ended

    def _reconcile(self, ended: Sequence[Attempt]) -> Sequence[Attempt]:
        """Hand back what the database says is held and is not known here; gives what is still to be recorded."""
        held = self._store.held_runs()
        unknown = sorted(held - {attempt.token for attempt in ended})
        if unknown:
            self._store.finish_and_claim(
                [handed_back(run_id, claim) for run_id, claim in unknown], max_runs=0
            )
        for run_id, _claim in unknown:
            self._log.info("handed back a run whose claim was never answered", run=run_id)
        return [attempt for attempt in ended if attempt.token in held]

    def _open_connection(self, *, holding: bool = False) -> None:
        self._panel.update(state=WorkerState.CONNECTING)
        while True:
            try:
                self._store = self._connect()
            except DatabaseUnavailable as error:
                self._pause(error, holding=holding)
            else:
                return

    def _pause(self, reason: ReproqError, *, holding: bool) -> None:
        """Wait a while before the next try; longer each time, and no longer than told."""
        delay_s = max(0.0, min(next(self._delays_s), self._patience_left_s()))
        self._log.warning(
            "the database does not do its part; trying again", reason=str(reason), delay_s=round(delay_s, 3)
        )
        wait_readable(self._orders.fds, delay_s)
        self._panel.update()
        self._orders.read()
        if self._orders.drain and not holding:
            raise ToldToStop("told to stop while the database was out of reach")
        if self._patience_left_s() <= 0:
            raise ToldToStop("told to stop at once, and what was held could not be recorded")

    def _patience_left_s(self) -> float:
        """How long there still is to record what is held; without limit until it is told to stop at once."""
        if not self._orders.quit:
            return math.inf
        if self._quit_seen_at is None:
            self._quit_seen_at = time.monotonic()
        return self._quit_seen_at + QUIT_PATIENCE_S - time.monotonic()


def _settlements(ended: Sequence[Attempt]) -> list[Settlement]:
    return [attempt.settlement for attempt in ended]
