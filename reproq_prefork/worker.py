"""The worker's loop: wait, claim, execute, finish; one run at a time.

No transaction is open while a task runs. A worker that has lost its lease exits, and its master starts another
under another id: an id is never used again after its lease has ended.
"""

from __future__ import annotations

import random
import time
from dataclasses import replace

from setproctitle import setproctitle

from reproq_prefork.errors import ExitStatus
from reproq_prefork.executors import Executor, NoProcess, TaskWillNotDie
from reproq_prefork.ledger import Attempt, LeaseLost, Ledger, ToldToStop
from reproq_prefork.log import Log
from reproq_prefork.orders import Orders
from reproq_prefork.processes import resident_kib
from reproq_prefork.scoreboard import Scoreboard, WorkerPanel, WorkerState, boottime_ns
from reproq_prefork.settings import Settings
from reproq_prefork.settlement import settle
from reproq_prefork.signals import wait_readable
from reproq_prefork.task_run import (
    Abandoned,
    ClaimedRun,
    Failure,
    Interrupted,
    Outcome,
    RetryPolicy,
    Settlement,
    Success,
    handed_back,
)
from reproq_prefork.wakeup import WakePipe
from reproq_prefork.watch import TaskWatch

STEWARD_STALE_S = 5.0
LIFE_SIGN_INTERVAL_S = 5.0
NO_PROCESS_DELAY_S = 2.0
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
        """`slot` and `steward` are this worker's, and its steward's, places on the scoreboard."""
        self._settings = settings
        self._slot = slot
        self._steward = steward
        self._scoreboard = scoreboard
        self._panel = panel
        self._orders = orders
        self._wake = wake
        self._ledger = ledger
        self._policy = policy
        self._executor = executor
        self._log = log
        self._recycle_after = _jittered(settings.max_tasks)

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
            return ExitStatus.LEASE_LOST
        except TaskWillNotDie as stuck:
            # The master adopts what is left, and sees it gone before the run is claimable.
            self._log.error(str(stuck))
            return ExitStatus.FAILURE
        return ExitStatus.OK

    def _work(self) -> None:
        ended: Attempt | None = None
        while True:
            self._orders.read()
            leaving = self._orders.drain or self._is_worn_out()
            max_runs = 0 if leaving or self._panel.is_quiet() else 1
            run = self._ledger.turn(ended, max_runs=max_runs) if ended or max_runs else None
            self._orders.read()
            if run is not None and self._orders.drain:
                # Told to stop while the claim was on its way.
                ended = Attempt(run, handed_back(run.id, run.claim))
                continue
            if run is not None:
                # It got all it asked for, so there may be more: another worker should look.
                self._wake.wake(1, at_most_waiting=self._settings.workers)
                ended = self._attempt(run)
            else:
                if ended is not None:
                    self._show_idle()
                ended = None
                if leaving:
                    return
                self._wait_for_work()

    def _attempt(self, run: ClaimedRun) -> Attempt:
        """Run the task. The panel says so from before it starts until the attempt is recorded."""
        started_ns = boottime_ns()
        timeout_s = self._settings.timeout_s if run.timeout_s is None else run.timeout_s
        deadline_ns = started_ns + int(timeout_s * 1e9) if timeout_s else 0
        self._panel.update(
            state=WorkerState.BUSY,
            run_id=run.id,
            claim=run.claim,
            attempt=run.attempt,
            started_ns=started_ns,
            deadline_ns=deadline_ns,
        )
        setproctitle(f"reproq-prefork: worker {self._slot} [busy {run.id}]")
        self._log.debug(f"run {run.id} started", attempt=run.attempt, queue=run.queue_name)
        try:
            ending = self._executor.run(run, TaskWatch(self._panel, self._orders, deadline_ns=deadline_ns))
        except NoProcess as reason:
            self._log.warning(f"run {run.id} is handed back", reason=str(reason))
            self._panel.update(state=WorkerState.SETTLING, deadline_ns=0, run_id=0)
            return Attempt(run, replace(handed_back(run.id, run.claim), delay_s=NO_PROCESS_DELAY_S))
        self._panel.update(
            state=WorkerState.SETTLING,
            deadline_ns=0,
            tasks_done=self._panel.record.tasks_done + 1,
            rss_kib=resident_kib(),
        )
        seconds = (boottime_ns() - started_ns) / 1e9
        settlement = settle(run, ending.outcome, self._policy, random.random(), ending.usage)
        self._report(run, ending.outcome, settlement, seconds)
        if settlement is None:
            raise LeaseLost(f"run {run.id} was ended: the worker's lease had")
        return Attempt(run, settlement)

    def _report(
        self, run: ClaimedRun, outcome: Outcome, settlement: Settlement | None, seconds: float
    ) -> None:
        fields: dict[str, object] = {"attempt": run.attempt, "seconds": round(seconds, 3)}
        if settlement is not None and settlement.delay_s is not None:
            fields["retry_in_s"] = round(settlement.delay_s, 3)
        match outcome:
            case Failure(kind, message):
                verdict = "failed" if settlement is None or settlement.delay_s is None else "will be retried"
                self._log.warning(f"run {run.id} {verdict}", kind=kind.value, reason=message, **fields)
            case Abandoned(reason):
                self._log.warning(f"run {run.id} was ended", reason=reason, **fields)
            case Interrupted(reason):
                verdict = "is handed back" if settlement is not None and settlement.refunded else "failed"
                self._log.warning(f"run {run.id} {verdict}", reason=reason, **fields)
            case Success():
                self._log.info(f"run {run.id} succeeded", **fields)

    def _wait_for_work(self) -> None:
        """Sleep until woken; by itself it looks only while the steward, which polls for all, does not."""
        look_at = time.monotonic() + self._settings.poll_interval_s * random.uniform(0.75, 1.25)
        while True:
            wait_s = min(LIFE_SIGN_INTERVAL_S, max(0.0, look_at - time.monotonic()))
            wait_readable((*self._orders.fds, self._wake.reader), wait_s)
            self._panel.update()
            self._orders.read()
            if self._orders.drain or self._wake.take():
                return
            if self._panel.lease().lost:
                raise LeaseLost("the worker's lease ended while it was idle")
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
        return bool(self._recycle_after) and self._panel.record.tasks_done >= self._recycle_after

    def _show_idle(self) -> None:
        self._panel.update(state=WorkerState.IDLE, run_id=0, claim=0, attempt=0, started_ns=0, deadline_ns=0)
        setproctitle(f"reproq-prefork: worker {self._slot} [idle]")


def _jittered(max_tasks: int) -> int:
    """`max_tasks` less up to a tenth; 0: never."""
    return max(1, max_tasks - int(max_tasks * RECYCLE_JITTER * random.random())) if max_tasks else 0
