"""The worker's loop: wait, claim, execute, record. It executes one run after the other, and claims short ones
together.

No transaction is open while a task runs. A worker that has lost its lease exits, and its master starts another one
with a new id. An id is never used again after its lease has ended.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence

from setproctitle import setproctitle

from reproq_prefork.errors import ExitStatus
from reproq_prefork.executors.contract import Executor, NoProcess, NoProgram, TaskWillNotDie
from reproq_prefork.model.outcome import (
    Abandoned,
    AttemptReport,
    Cancelled,
    Completed,
    Failure,
    Interrupted,
    Snoozed,
    Success,
)
from reproq_prefork.model.run import ClaimedRun
from reproq_prefork.model.settlement import RetryPolicy, Settlement, handed_back, settle
from reproq_prefork.settings import Settings
from reproq_prefork.text.log import Log
from reproq_prefork.text.recurring import Recurring
from reproq_prefork.unix.orders import Orders
from reproq_prefork.unix.panel import WorkerPanel
from reproq_prefork.unix.proc import resident_kib
from reproq_prefork.unix.scoreboard import Scoreboard, WorkerState, boottime_ns
from reproq_prefork.unix.wake_pipe import Sleep, WakePipe
from reproq_prefork.worker.batch import Batch
from reproq_prefork.worker.batch_size import BatchSize
from reproq_prefork.worker.claiming import LeaseLost, Turn
from reproq_prefork.worker.database import Ledger
from reproq_prefork.worker.finish_announcer import Announcer
from reproq_prefork.worker.link import ToldToStop
from reproq_prefork.worker.task_watch import TaskWatch

STEWARD_STALE_S = 5.0
LIFE_SIGN_INTERVAL_S = 5.0
NO_PROCESS_DELAY_S = 2.0
NO_PROGRAM_DELAY_S = 5.0
NO_PROGRAM_WARNING_S = 60.0
RECYCLE_JITTER = 0.1  # of --max-tasks, so that workers are not replaced all at once


class Worker:
    def __init__(
        self,
        *,
        settings: Settings,
        slot: int,
        steward: int,
        scoreboard: Scoreboard,
        panel: WorkerPanel,
        orders: Orders,
        wake: WakePipe,
        ledger: Ledger,
        policy: RetryPolicy,
        executor: Executor,
        log: Log,
    ) -> None:
        """`slot` and `steward`: the places of this worker and of its steward on the scoreboard."""
        self._settings = settings
        self._slot = slot
        self._steward = steward
        self._scoreboard = scoreboard
        self._panel = panel
        self._orders = orders
        self._wake = wake
        self._sleep = Sleep(wake, orders.fds)
        self._ledger = ledger
        self._policy = policy
        self._executor = executor
        self._log = log
        self._announcer = Announcer(ledger=ledger, executor=executor, panel=panel, orders=orders, log=log)
        # If no run may have a second attempt, each run is claimed alone. The SQL does the same for a run whose
        # own limit is one attempt.
        self._batches = executor.batches and policy.attempts_allowed(2) > 1
        self._announces = executor.announces
        self._batch_size = BatchSize()
        self._recycle_after = _jittered(settings.max_tasks)
        self._max_rss_kib = self._reachable_rss_kib(settings.max_rss_kib)
        self._recurring = Recurring(
            log, first_interval_s=NO_PROGRAM_WARNING_S, longest_interval_s=NO_PROGRAM_WARNING_S
        )
        self._pauses_until = -math.inf

    def run(self) -> ExitStatus:
        """Work until told to stop, worn out, or without a lease."""
        try:
            self._ledger.open()
            self._show_idle()
            self._work()
            self._ledger.leave()
        except ToldToStop as told:
            self._log.warning(str(told))
        except LeaseLost as lost:
            self._log.warning(str(lost))
            self._ledger.close()
            return ExitStatus.LEASE_LOST
        except TaskWillNotDie as stuck:
            # The master adopts the processes that are left. It makes sure that they are gone before the run can
            # be claimed again.
            self._log.error(str(stuck))
            return ExitStatus.FAILURE
        return ExitStatus.OK

    def _work(self) -> None:
        ended: Sequence[Settlement] = ()
        while True:
            leaving = self._orders.drain or self._is_worn_out() or self._ledger.is_full
            # Ends are announced from time to time under load too. The worker must hold no run while it announces.
            makes_way = bool(ended) and self._announcer.is_due
            pauses = self._panel.is_quiet() or time.monotonic() < self._pauses_until
            max_runs = 0 if leaving or makes_way or pauses else self._max_runs()
            turn = self._ledger.turn(ended, max_runs=max_runs) if ended or max_runs else Turn()
            # TERM may have arrived in the meantime, even while the claim was being sent.
            self._orders.read()
            if turn.runs and self._orders.drain:
                ended = [*turn.unreadable, *(handed_back(*run.token) for run in turn.runs)]
            elif turn.runs:
                if turn.more:
                    self._wake.wake(1, at_most_waiting=self._settings.workers)
                ended = self._attempt_all(turn)
            else:
                ended = ()
                self._show_idle()
                if leaving or self._ledger.is_full:
                    return
                if self._announcer.is_due:
                    self._announcer.announce_due_ends(all_there_are=not makes_way)
                if not makes_way:
                    self._wait_for_work()

    def _max_runs(self) -> int:
        if not self._batches:
            return 1
        if not self._recycle_after:
            return self._batch_size.size
        return max(1, min(self._batch_size.size, self._recycle_after - self._panel.record.tasks_done))

    def _attempt_all(self, turn: Turn) -> Sequence[Settlement]:
        """Execute the runs of one claim; return what still must be recorded about them.

        The runs have `BATCH_STRETCH_S` together. A run that has not started by then is handed back. If one run
        takes longer than that, the worker records the ended runs and hands back the waiting ones while it runs.
        """
        self._batch_size.claimed(len(turn.runs))
        batch = Batch(turn.runs, self._ledger, claimed_ns=boottime_ns())
        for settlement in turn.unreadable:
            batch.ended(settlement)
        try:
            while (run := batch.next(self._orders)) is not None:
                self._attempt(run, batch)
            self._executor.rest()
        except (LeaseLost, TaskWillNotDie):
            batch.put_aside()
            raise
        self._panel.update(
            state=WorkerState.SETTLING,
            deadline_ns=0,
            waiting=0,
            tasks_done=self._panel.record.tasks_done + batch.started,
            rss_kib=resident_kib(),
        )
        if batch.started:
            self._batch_size.ended(batch.started, (boottime_ns() - batch.claimed_ns) / 1e9)
        if batch.succeeded:
            self._log.info(
                f"runs {batch.succeeded[0]} to {batch.succeeded[-1]} succeeded", runs=len(batch.succeeded)
            )
        return batch.to_be_recorded()

    def _attempt(self, run: ClaimedRun, batch: Batch) -> None:
        """Run the task.

        The panel shows the run before the task starts, until another run starts or the attempt is recorded.
        """
        started_ns = boottime_ns()
        timeout_s = self._settings.timeout_s if run.timeout_s is None else run.timeout_s
        deadline_ns = started_ns + int(timeout_s * 1e9) if timeout_s else 0
        watch = TaskWatch(
            self._panel,
            self._orders,
            deadline_ns=deadline_ns,
            errands=batch if batch.due_ns else None,
        )
        if watch.is_too_late():
            batch.not_started(handed_back(*run.token))
            raise LeaseLost(f"run {run.id} was not started: the worker's lease has ended")
        self._panel.start(
            run.id,
            run.claim,
            run.attempt,
            started_ns=started_ns,
            deadline_ns=deadline_ns,
            waiting=batch.waiting,
        )
        if batch.started == 1:
            setproctitle(f"reproq-prefork: worker {self._slot} [busy {batch.name}]")
        try:
            report = self._executor.run(run, watch)
        except NoProgram as reason:
            batch.not_started(self._without_program(run, reason))
            return
        except NoProcess as reason:
            batch.not_started(self._not_started(run, reason))
            return
        settlement = self._settlement(run, report)
        if batch.is_shared and isinstance(report.outcome, Success):
            batch.succeeded.append(run.id)
        else:
            self._log_outcome(run, report, settlement, (boottime_ns() - started_ns) / 1e9)
        if settlement is not None:
            batch.ended(settlement)
        elif isinstance(report.outcome, Completed):
            self._panel.update(run_id=0)  # the task itself has recorded its end
        else:
            raise LeaseLost(f"run {run.id} was stopped: the worker's lease had ended")

    def _not_started(self, run: ClaimedRun, reason: NoProcess) -> Settlement:
        """Hand the run back. It is due after a delay."""
        self._log.warning(f"run {run.id} is handed back", reason=str(reason))
        self._panel.update(run_id=0, deadline_ns=0)
        return handed_back(*run.token)._replace(delay_s=NO_PROCESS_DELAY_S)

    def _without_program(self, run: ClaimedRun, reason: NoProgram) -> Settlement:
        """Hand the run back, and claim no other for a while: no run can start here, and other hosts may have the
        program. A worker that also runs Python tasks goes on with them.
        """
        self._recurring.warning(
            "the program of tasks cannot be started, so runs are handed back", reason=str(reason), run=run.id
        )
        self._panel.update(run_id=0, deadline_ns=0)
        if not self._settings.runs_python:
            self._pauses_until = time.monotonic() + NO_PROGRAM_DELAY_S
        return handed_back(*run.token)._replace(delay_s=NO_PROGRAM_DELAY_S)

    def _settlement(self, run: ClaimedRun, report: AttemptReport) -> Settlement | None:
        settlement = settle(run, report.outcome, self._policy, random.random(), report.usage)
        if settlement is None or run.task_path is None or report.announced or not self._announces:
            return settlement
        return settlement._replace(finish_due=True)

    def _log_outcome(
        self, run: ClaimedRun, report: AttemptReport, settlement: Settlement | None, seconds: float
    ) -> None:
        fields: dict[str, object] = {"attempt": run.attempt, "seconds": round(seconds, 3)}
        if isinstance(report.outcome, Failure) and settlement is not None and settlement.delay_s is not None:
            fields["retry_in_s"] = round(settlement.delay_s, 3)
        match report.outcome:
            case Failure(kind, message):
                verdict = "failed" if settlement is None or settlement.delay_s is None else "will be retried"
                self._log.warning(f"run {run.id} {verdict}", kind=kind.value, reason=message, **fields)
            case Abandoned(reason):
                self._log.warning(f"run {run.id} was ended", reason=reason, **fields)
            case Interrupted(reason):
                verdict = "is handed back" if settlement is not None and settlement.refunded else "failed"
                self._log.warning(f"run {run.id} {verdict}", reason=reason, **fields)
            case Snoozed(after_s, reason):
                if reason:
                    fields["reason"] = reason
                self._log.info(f"run {run.id} is snoozed for {after_s:.15g} s", **fields)
            case Cancelled():
                self._log.info(f"run {run.id} was cancelled", **fields)
            case Success() | Completed():
                self._log.info(f"run {run.id} succeeded", **fields)

    def _wait_for_work(self) -> None:
        """Sleep until woken. The steward polls for all workers, so a worker polls only while the steward does not.

        The same is true for ends that must be announced.
        """
        look_at = time.monotonic() + self._settings.poll_interval_s * random.uniform(0.75, 1.25)
        while True:
            next_at = min(look_at, self._ledger.tend_at)
            self._sleep.wait(min(LIFE_SIGN_INTERVAL_S, max(0.0, next_at - time.monotonic())))
            self._panel.update()
            self._orders.read()
            if self._orders.drain:
                self._wake.pass_on()
                return
            if self._wake.take():
                return
            if self._panel.lease().lost:
                raise LeaseLost("the worker's lease ended while it was idle")
            if time.monotonic() >= self._ledger.tend_at:
                self._ledger.tend()
                if self._ledger.is_full:
                    return
            if time.monotonic() >= look_at:
                if self._steward_is_away():
                    return
                look_at += self._settings.poll_interval_s

    def _steward_is_away(self) -> bool:
        record = self._scoreboard.read_steward(self._steward)
        if record is None or not record.connected:
            return True
        return boottime_ns() - record.heartbeat_ns > STEWARD_STALE_S * 1e9

    def _is_worn_out(self) -> bool:
        record = self._panel.record
        return (self._recycle_after > 0 and record.tasks_done >= self._recycle_after) or (
            self._max_rss_kib > 0 and record.rss_kib > self._max_rss_kib
        )

    def _reachable_rss_kib(self, max_rss_kib: int) -> int:
        """Return the limit, or 0 (no limit) if a new worker is already larger.

        With such a limit, a worker would be replaced after each task.
        """
        born_kib = resident_kib()
        if 0 < max_rss_kib <= born_kib:
            self._log.warning(
                "--max-rss is ignored: a new worker is larger", kib=born_kib, max_kib=max_rss_kib
            )
            return 0
        return max_rss_kib

    def _show_idle(self) -> None:
        if self._panel.record.state is WorkerState.IDLE:
            return
        self._panel.update(state=WorkerState.IDLE, run_id=0, claim=0, attempt=0, started_ns=0, deadline_ns=0)
        setproctitle(f"reproq-prefork: worker {self._slot} [idle]")


def _jittered(max_tasks: int) -> int:
    """Return `max_tasks`, made smaller by a random share of up to a tenth. 0: never replace the worker."""
    return max(1, max_tasks - int(max_tasks * RECYCLE_JITTER * random.random())) if max_tasks else 0
