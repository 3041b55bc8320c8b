"""How a worker records ends after the one statement, which records all of them and claims again, has failed.

The ends are recorded without a claim, in pieces. A refused piece is halved until the end that causes the refusal
is alone; that one is carried along, as `refused_ends` says. Before it blames an end, the worker records nothing,
as a test: a server that refuses that refuses everything, and the worker waits for it. Then the worker checks
whether somebody has locked the row.

Each public method that sends a statement is one step of the ledger's loop, and raises `ConnectionLost`. Once the
worker is connected again and knows what it still holds, the ledger calls `blame` with that error.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Iterable, Sequence

from reproq_prefork.errors import ReproqError
from reproq_prefork.model.run import Status, Token
from reproq_prefork.model.settlement import Settlement, handed_back
from reproq_prefork.store.outcomes import StatementRefused, ValueRefused
from reproq_prefork.text.log import Log
from reproq_prefork.unix.orders import Orders
from reproq_prefork.unix.panel import WorkerPanel
from reproq_prefork.worker.asking import Asking
from reproq_prefork.worker.link import Link
from reproq_prefork.worker.refused_ends import RefusedEnd, RefusedEnds


class Fault(enum.Enum):
    """What caused the refusal of a statement."""

    SERVER = "the server accepts no changes at this moment"
    ENDS = "there were ends to record; from now on they are recorded in pieces"
    CLAIM = "there was nothing to record, so the claim was refused"


class Recording:
    """`ended`: ends to record together with the next claim. Each end is here, in a piece, or carried along."""

    def __init__(self, *, link: Link, asking: Asking, panel: WorkerPanel, orders: Orders, log: Log) -> None:
        self._link = link
        self._panel = panel
        self._orders = orders
        self._log = log
        self._asking = asking
        self.ended: Sequence[Settlement] = ()
        self.pieces: list[Sequence[Settlement]] = []  # to record without a claim, the last one first
        self.carried = RefusedEnds()
        self.refusal: ReproqError | None = None  # its cause is not known yet
        self.is_leaving = False
        self._accused: Sequence[Settlement] = ()  # the piece whose statement was refused, or lost
        self._tried: RefusedEnd | None = None  # the end whose statement was lost

    @property
    def is_holding(self) -> bool:
        return bool(self.ended or self.pieces or self._accused or self.carried)

    @property
    def tend_at(self) -> float:
        """When to try a carried end again."""
        if not self.carried:
            return self.carried.next_at
        end = self.carried.get(self._panel.lease().cancelled_run)
        if end is not None and not end.is_cancelled:
            end.is_cancelled, end.next_at = True, 0.0
        return self.carried.next_at

    def has_ended(self, attempts: Sequence[Settlement]) -> None:
        """Record these attempts too."""
        self.ended = [*self.ended, *attempts] if self.ended else attempts

    def set_apart(self) -> None:
        """Record the ended attempts without a claim."""
        if self.ended:
            self.pieces.append(self.ended)
            self.ended = ()

    def sort(self, held: frozenset[Token]) -> None:
        """Hand back held runs that are not known here. Forget the ends of runs that are not held any more."""
        known = [settlement for group in (self.ended, self._accused, *self.pieces) for settlement in group]
        known += [end.settlement for end in self.carried]
        unknown = held - {settlement.token for settlement in known}

        def still(attempts: Sequence[Settlement]) -> Sequence[Settlement]:
            return [settlement for settlement in attempts if settlement.token in held]

        self.ended, self._accused = still(self.ended), still(self._accused)
        self.pieces = [piece for piece in map(still, self.pieces) if piece]
        for end in self.carried:
            if end.token not in held:
                self._drop(end)
        if unknown:
            self.pieces.append(self.handed_back(unknown))
        self.warn_of_the_late([settlement for settlement in known if settlement.token not in held])

    def handed_back(self, unknown: Iterable[Token]) -> Sequence[Settlement]:
        """Hand back runs of a claim whose reply was lost. They do not count as attempts."""
        backs = [handed_back(*token) for token in sorted(unknown)]
        for back in backs:
            self._log.info("handing back a run whose claim was never answered", run=back.run_id)
        return backs

    def find_fault(self, refusal: ReproqError) -> Fault:
        """Find what caused `refusal`, and set it apart."""
        self.refusal = None
        try:
            self._record_nothing()
            runs = self._link.store.changeable_runs([settlement.token for settlement in self._accused])
        except (StatementRefused, ValueRefused):
            self.ended = [*self.ended, *self._accused, *(each for piece in self.pieces for each in piece)]
            self.pieces, self._accused = [], ()
            return Fault.SERVER
        if not self._accused:
            return Fault.ENDS if self.pieces else Fault.CLAIM
        self.warn_of_the_late([settlement for settlement in self._accused if settlement.token not in runs])
        accused = [settlement for settlement in self._accused if settlement.token in runs]
        free = [settlement for settlement in accused if runs[settlement.token].is_free]
        if len(free) == len(accused):
            self._accused = accused
            self.blame(refusal)
            return Fault.ENDS
        self._accused = ()
        for settlement in accused:
            if not runs[settlement.token].is_free:
                self._carry(settlement, refusal)
        if free:
            self.pieces.append(free)
        return Fault.ENDS

    def blame(self, error: ReproqError) -> None:
        """Blame the accused ends: the server accepts other statements."""
        accused, self._accused = self._accused, ()
        tried, self._tried = self._tried, None
        if len(accused) == 1:
            self._carry(accused[0], error)
        elif accused:
            half = len(accused) // 2
            self.pieces += [accused[half:], accused[:half]]
        if tried is not None and self.carried.get(tried.token) is tried:
            self._note_refusal(tried, error, took_s=0.0)

    def record_piece(self) -> None:
        self._panel.update()  # there may be many pieces, and each may take long
        self._accused = piece = self.pieces.pop()
        try:
            claim = self._link.store.finish_and_claim(piece, max_runs=0)
        except ValueRefused as refused:
            self.blame(refused)
        except StatementRefused as refused:
            self.refusal = refused
        else:
            self._accused = ()
            self._link.answered()
            self.warn_of_the_late(piece, claim.settled)

    def try_carried(self, now: float) -> None:
        """Try the carried ends again that are due."""
        due = self.carried.due(now)
        try:
            self._record_nothing()
            runs = self._link.store.changeable_runs([end.token for end in due])
        except (StatementRefused, ValueRefused):
            for end in due:
                end.put_off(time.monotonic())
            return
        for end in due:
            run = runs.get(end.token)
            if run is None:
                self.warn_of_the_late([end.settlement])
                self._drop(end)
            elif run.is_free:
                end.is_python = run.is_python
                end.is_cancelled = end.is_cancelled or run.is_cancelled
                self._try(end)
            else:
                end.put_off(now)

    def warn_of_the_late(self, ended: Sequence[Settlement], settled: int = 0) -> None:
        """Log the ends that were recorded too late.

        Hand-backs are not counted: the steward may already have done them. After a lost reply nothing is logged,
        because that statement may have recorded the others.
        """
        results = [settlement.run_id for settlement in ended if not settlement.refunded]
        late = len(results) - settled
        if late <= 0 or self._link.lost is not None or self._asking.is_in_doubt(time.monotonic()):
            return
        if len(results) == 1:
            self._log.warning(
                "a result came too late: the run did not belong to this worker any more", run=results[0]
            )
        else:
            self._log.warning(
                "results came too late: their runs did not belong to this worker any more",
                late=late,
                of=len(results),
                first=results[0],
                last=results[-1],
            )

    def _try(self, end: RefusedEnd) -> None:
        goes_on = True
        while goes_on:
            started = time.monotonic()
            settlement = end.next_end(started, leaving=self.is_leaving or self._orders.drain)
            self._tried = end
            try:
                self._link.store.finish_and_claim([settlement], max_runs=0)
            except (StatementRefused, ValueRefused) as refused:
                self._tried = None
                if isinstance(refused, ValueRefused) or self._is_at_fault(end):
                    goes_on = self._note_refusal(end, refused, took_s=time.monotonic() - started)
                else:
                    end.put_off(time.monotonic())
                    goes_on = False
            else:
                self._tried = None
                self._drop(end)
                self._log_recorded(end, settlement)
                goes_on = False

    def _is_at_fault(self, end: RefusedEnd) -> bool:
        """Whether this end causes the refusal: the server accepts other changes, and nobody has locked the row."""
        try:
            self._record_nothing()
            run = self._link.store.changeable_runs([end.token]).get(end.token)
        except (StatementRefused, ValueRefused):
            return False
        return run is not None and run.is_free

    def _record_nothing(self) -> None:
        """Test the server: if it refuses this, it refuses everything."""
        self._link.store.finish_and_claim((), max_runs=0)

    def _carry(self, settlement: Settlement, error: ReproqError) -> None:
        self.carried.add(RefusedEnd.first_refused(settlement, error, time.monotonic()))
        # Before the panel shows another run: if the worker dies, the steward must know that this run had started.
        self._panel.show_unrecorded(self.carried.tokens)
        self._log.warning(
            f"the end of run {settlement.run_id} ({settlement.status}) is refused, and others are not;"
            " it will be tried again",
            reason=str(error),
        )

    def _drop(self, end: RefusedEnd) -> None:
        self.carried.drop(end.token)
        self._panel.show_unrecorded(self.carried.tokens)

    def _note_refusal(self, end: RefusedEnd, error: ReproqError, *, took_s: float) -> bool:
        """Note the refusal; return whether to try a smaller end at once."""
        had_hope = not end.is_given_up
        goes_on = end.was_refused(error, time.monotonic(), took_s=took_s)
        if end.is_given_up and had_hope:
            self._log.error(
                f"run {end.settlement.run_id} cannot be ended: the database refuses every write about it."
                " It stays RUNNING and is tried again once a minute. Look for a trigger or a constraint on"
                " task_runs that is not part of the schema",
                reason=end.reason,
            )
        return goes_on

    def _log_recorded(self, end: RefusedEnd, settlement: Settlement) -> None:
        wanted, run_id = end.settlement, end.settlement.run_id
        if settlement == wanted:
            self._log.info(f"the end of run {run_id} is recorded", refusals=end.refusals)
        elif settlement.status is wanted.status is not Status.FAILED:
            self._log.warning(
                f"the end of run {run_id} is recorded without its output and usage", reason=end.reason
            )
        else:
            self._log.warning(
                f"run {run_id} is {settlement.status}: the database refused to record that it was"
                f" {wanted.status}",
                reason=end.reason,
            )
