"""What a worker does with the database, and how it handles every error.

The protocol, error by error:

* `ConnectionLost`: nobody knows whether the statement was committed. The worker connects again, ends its old
  server process, and asks which runs it holds. It records again, under the same token, what was not recorded. It
  hands back the runs of a claim whose reply was lost. `asking` says when the worker asks again.
* `StatementRefused`, `ValueRefused`: nothing was written. If the server refuses everything at this moment, the
  worker waits, as long as it takes, and blames no run. If it refuses one run, that run is the cause, and is ended:
  `recording` finds it, `refused_ends` says how it ends. The worker continues with other runs.
* The lease has ended: what was recorded before that counts. Everything else does not belong to this worker any
  more (`LeaseLost`).

`Ledger.turn` is one loop. Each time it does the first step that is needed. Attributes say what is needed, and no
step calls another.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

from reproq_prefork.errors import ReproqError
from reproq_prefork.model.run import Token
from reproq_prefork.model.settlement import RetryPolicy, Settlement
from reproq_prefork.store.outcomes import ConnectionLost, StatementRefused, ValueRefused
from reproq_prefork.store.worker_store import WorkerStore
from reproq_prefork.text.log import Log
from reproq_prefork.unix.orders import Orders
from reproq_prefork.unix.panel import WorkerPanel
from reproq_prefork.unix.scoreboard import WorkerState, boottime_ns
from reproq_prefork.worker.asking import Asking
from reproq_prefork.worker.claiming import Claiming, LeaseLost, Turn
from reproq_prefork.worker.link import Link
from reproq_prefork.worker.reconciling import Reconciling
from reproq_prefork.worker.recording import Fault, Recording

LEAVE_PATIENCE_S = 5.0  # to record ends that are refused
LEAVE_INTERVAL_S = 0.25


class Ledger:
    """Raises `LeaseLost` and `ToldToStop`. After every other database error it waits and tries again."""

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
        self._link = Link(connect=connect, panel=panel, orders=orders, log=log)
        self._panel = panel
        self._orders = orders
        self._believed_lease_ns = int(believed_lease_s * 1e9)
        self._log = log
        self._asking = Asking(believed_lease_s, time.monotonic())
        self._recording = Recording(link=self._link, asking=self._asking, panel=panel, orders=orders, log=log)
        self._claiming = Claiming(
            link=self._link,
            recording=self._recording,
            panel=panel,
            policy=policy,
            believed_lease_ns=self._believed_lease_ns,
            log=log,
        )
        self._reconciling = Reconciling(
            link=self._link, asking=self._asking, recording=self._recording, panel=panel, log=log
        )

    def open(self) -> None:
        """Connect and register."""
        self._link.open()
        while True:
            sent_ns = boottime_ns()
            try:
                self._link.store.register()
                break
            except ConnectionLost:
                self._link.open()
            except StatementRefused as refused:
                self._link.pause(refused, holding=False)
            except ValueRefused:
                # The id exists: an earlier try was committed, but its reply was lost.
                if not self._link.store.reconnected():
                    raise LeaseLost("the lease ended before the worker had registered") from None
                break
        self._panel.update(
            lease_end_ns=sent_ns + self._believed_lease_ns, backend_pid=self._link.store.backend.pid
        )

    def turn(self, ended: Sequence[Settlement], *, max_runs: int) -> Turn:
        """Record the ended attempts and claim up to `max_runs` runs, in one statement unless there is an error.

        The worker must hold no other run. The ledger keeps what could not be recorded.
        """
        self._recording.has_ended(ended)
        while True:
            try:
                turn = self._step(max_runs)
            except ConnectionLost as lost:
                self._link.warn_of_loss(lost)
                self._link.lost, self._claiming.is_wary = lost, True
                self._recording.set_apart()
            else:
                if turn is not None:
                    return turn

    def _step(self, max_runs: int) -> Turn | None:  # noqa: C901 (one branch a step)
        """Do the first step that is needed. A result ends the turn; None: there is more to do."""
        recording, reconciling, claiming = self._recording, self._reconciling, self._claiming
        now = time.monotonic()
        if self._link.lost is not None:
            reconciling.connect_again(self._link.lost)
        elif recording.refusal is not None:
            self._find_fault(recording.refusal)
        elif now >= self._asking.at:
            reconciling.ask()
        elif recording.pieces:
            recording.record_piece()
        elif recording.carried and now >= recording.tend_at:
            recording.try_carried(now)
        elif reconciling.lease_is_over:
            raise LeaseLost("the lease ended while the database was out of reach")
        elif not max_runs or self._orders.drain:
            return claiming.finish_and_claim(0) if recording.ended else Turn()
        elif recording.carried.are_too_many:
            return self._wait_for_carried(now)
        elif not claiming.goes_alone:
            return claiming.finish_and_claim(max_runs)
        elif recording.ended:
            recording.set_apart()
        else:
            return claiming.claim_one()
        return None

    def _find_fault(self, refusal: ReproqError) -> None:
        fault = self._recording.find_fault(refusal)
        if fault is Fault.ENDS:
            return
        if fault is Fault.CLAIM:
            self._claiming.is_wary = True
        self._link.pause(refusal, holding=self._recording.is_holding)

    def _wait_for_carried(self, now: float) -> Turn | None:
        if self._recording.ended:
            self._recording.set_apart()
            return None
        if self._orders.drain or self.is_full:
            return Turn()
        self._link.rest(self.tend_at - now)
        return None

    # --- between runs, and in the middle of one ---

    @property
    def tend_at(self) -> float:
        """When to call `tend`, in monotonic seconds."""
        return min(self._asking.at, self._recording.tend_at)

    def tend(self) -> None:
        """Ask which runs are held and try refused ends again, if that is due. The worker must hold no run."""
        self.turn((), max_runs=0)

    @property
    def is_full(self) -> bool:
        """The worker carries as many hopeless ends as it may. It must leave; another worker begins without any."""
        return self._recording.carried.are_hopeless

    def record(self, ended: Sequence[Settlement]) -> bool:
        """Record these ends while a task runs, within a second or not at all. False: it failed, or nobody knows.

        This is called during a task, so it does not wait for the database and raises nothing. The next `turn`
        records what is not recorded now.
        """
        store = self._link.store
        try:
            with store.in_haste():
                claim = store.finish_and_claim(ended, max_runs=0)
        except (ConnectionLost, StatementRefused, ValueRefused):
            return False
        self._recording.warn_of_the_late(ended, claim.settled)
        return True

    @property
    def asks_amid_task_in_s(self) -> float:
        """In how many seconds to call `ask_amid_task` while a task runs; infinity: not at all."""
        return self._reconciling.asks_amid_task_in_s

    def ask_amid_task(self, known: Collection[Token]) -> None:
        """Hand back the held runs that are not in `known`. Called during a task, like `record`."""
        self._reconciling.ask_amid_task(known)

    # --- announcing ends ---

    def take_announcement(self) -> int | None:
        """Take a run whose end must be announced. It belongs to this worker for a minute. None: there is none, or
        the database refused the statement.

        As for `announced`, the worker must hold no run, and must have recorded all that it held.
        """
        try:
            return self._link.store.take_finish_due()
        except ConnectionLost as lost:
            self._connect_after(lost)
        except (StatementRefused, ValueRefused) as refused:
            self._log.warning("the database did not say which end to announce next", reason=str(refused))
        return None

    def announced(self, run_id: int) -> None:
        """Note that the end of this run was announced. If that cannot be noted, it is announced again."""
        try:
            self._link.store.clear_finish_due(run_id)
        except ConnectionLost as lost:
            self._connect_after(lost)
        except (StatementRefused, ValueRefused) as refused:
            self._log.warning("the end of a run will be announced again", run=run_id, reason=str(refused))

    def _connect_after(self, lost: ConnectionLost) -> None:
        self._link.warn_of_loss(lost)
        self._link.lost = lost
        self.tend()

    # --- the end ---

    def leave(self) -> None:
        """Remove the registration, so that nobody has to wait until its lease ends.

        The worker leaves unrecorded ends, and a claim that may still be committed, to the steward. The steward
        resets the runs of a worker that does not deregister.
        """
        self._record_at_last()
        unrecorded = len(self._recording.carried)
        try:
            if unrecorded or self._asking.is_in_doubt(time.monotonic()):
                self._log.warning(
                    "the worker may still hold runs; its steward will reset them", unrecorded=unrecorded
                )
                return
            if not self._link.store.deregister():
                self._asking.at = 0.0  # it holds a run that it does not know
                self.tend()
                self._link.store.deregister()
        except (ConnectionLost, StatementRefused) as error:
            self._log.warning(
                "the worker could not deregister; its registration will expire", reason=str(error)
            )
            return
        finally:
            self._link.store.close()
        self._panel.update(state=WorkerState.STOPPED, run_id=0)

    def _record_at_last(self) -> None:
        """Try the carried ends again, for a limited time."""
        recording = self._recording
        recording.is_leaving = True
        gives_up_at = time.monotonic() + LEAVE_PATIENCE_S
        while recording.carried:
            recording.carried.hasten()
            self.tend()
            waits = time.monotonic() < gives_up_at or recording.carried.await_the_server
            if self._orders.quit or recording.carried.are_given_up or not waits:
                return
            self._link.rest(LEAVE_INTERVAL_S)

    def close(self) -> None:
        """Close the connection of a worker that is not registered any more."""
        self._link.store.close()
