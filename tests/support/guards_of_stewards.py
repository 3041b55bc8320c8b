"""Guards of the steward and of its duties, and the lengths of leases."""

from __future__ import annotations

from collections.abc import Sequence

from tests.chaos.builds import Change
from tests.support.guard import Guard

STEWARD = "tests/unit/steward/test_loop.py"
DUTIES = "tests/unit/steward/test_duties.py"

STEWARDS: Sequence[Guard] = (
    Guard(
        "an announced cancel is acted on",
        [Change("steward/loop.py", "if self._notice_cancels.concerns(news.cancelled_at):", "if False:")],
        [
            "tests/integration/test_cancel.py"
            "::test_a_cancel_that_is_notified_does_not_wait_for_the_steward_to_poll"
        ],
    ),
    Guard(
        "a lease that is not renewed is lost",
        [
            Change("steward/renew_leases.py", "lost=not kept,", "lost=False,"),
        ],
        [DUTIES],
    ),
    Guard(
        "a renewal that is refused is sent again soon",
        [
            Change(
                "steward/renew_leases.py",
                "self.due_at = began + min(RENEW_RETRY_S, self.period_s)",
                "self.due_at = began + self.period_s",
            ),
        ],
        [DUTIES],
    ),
    Guard(
        "only who is registered has its lease renewed",
        [
            Change(
                "steward/workers.py",
                "if record.is_registered and proc.is_alive(record.process)",
                "if proc.is_alive(record.process)",
            ),
        ],
        [DUTIES],
    ),
    Guard(
        "a renewal counts from before it was sent",
        [
            Change(
                "steward/renew_leases.py",
                "lease_end_ns=sent_ns + self._believed_ns if kept else 0",
                "lease_end_ns=boottime_ns() + self._believed_ns if kept else 0",
            ),
        ],
        [DUTIES],
    ),
    Guard(
        "a worker whose master lives is not abandoned",
        [
            Change("steward/reset_abandoned.py", " and not proc.is_alive(worker.master):", ":"),
        ],
        [DUTIES],
    ),
    Guard(
        "an abandoned worker's runs are charged",
        [
            Change(
                "steward/reset_abandoned.py",
                "LostWorker(worker.id, None, True, False,",
                "LostWorker(worker.id, None, False, False,",
            ),
        ],
        [DUTIES],
    ),
    Guard(
        "a batch that is in time is not handed back by the steward",
        [
            Change(
                "steward/hand_back_waiting.py",
                "and record.started_ns < late_ns:",
                "and record.started_ns > 0:",
            ),
        ],
        [DUTIES],
    ),
    Guard(
        "only the run that was cancelled has its worker killed",
        [
            Change(
                "steward/notice_cancels.py",
                "if started == cancelled and record.state is WorkerState.BUSY:",
                "if True:",
            ),
        ],
        [DUTIES],
    ),
    Guard(
        "a reset is repeated until the server process is seen gone",
        [
            Change("steward/reset_lost.py", "return seen_gone and done.is_all", "return done.is_all"),
        ],
        [STEWARD],
    ),
    Guard(
        "a registration stays until the server process is seen gone",
        [
            Change(
                "steward/reset_lost.py", "keep = not seen_gone and not store.backend.pooled", "keep = False"
            ),
        ],
        [STEWARD],
    ),
    Guard(
        "a reset is repeated longer than a statement may take",
        [
            Change(
                "steward/reset_lost.py",
                "ends_at = now + max(self._lease_s, UNSEEN_S)",
                "ends_at = now + 10",
            ),
        ],
        [STEWARD],
    ),
    Guard(
        "a death that is told again begins no new reset",
        [
            Change("steward/reset_lost.py", "if lost.worker_id in self._again:", "if False:"),
        ],
        [STEWARD],
    ),
    Guard(
        "a dead worker whose reset is refused is kept",
        [
            Change(
                "steward/reset_lost.py",
                "self._lost.append(lost)  # behind the others, so that they come first",
                "pass",
            ),
        ],
        [STEWARD],
    ),
    Guard(
        "a reset that is refused keeps no other duty",
        [
            Change("steward/loop.py", "self._do(self._reset_lost.run, store)", "self._reset_lost.run(store)"),
        ],
        [STEWARD],
    ),
    Guard(
        "a steward quits once its dead workers are reset",
        [
            Change(
                "steward/loop.py",
                "if self._orders.quit and (self._store is None or not self._reset_lost.waiting):",
                "if self._orders.quit:",
            ),
        ],
        [STEWARD],
    ),
    Guard(
        "what a worker without a master carried along had started",
        [
            Change("steward/loop.py", "unrecorded=unrecorded or (),", "unrecorded=(),"),
        ],
        [STEWARD],
    ),
    Guard(
        "all may have started where nobody knows what it carried along",
        [
            Change(
                "steward/loop.py",
                "charge_all=last is None or unrecorded is None,",
                "charge_all=last is None,",
            ),
        ],
        [STEWARD],
    ),
    Guard(
        "a believed lease has its margin",
        [
            Change(
                "settings/__init__.py", "return self.lease_s - self.fence_margin_s", "return self.lease_s"
            ),
        ],
        ["tests/unit/settings/test_resolve.py"],
    ),
    Guard(
        "a master ends a worker before the lease ends",
        [
            Change(
                "settings/__init__.py", "return self.fence_margin_s / 2", "return self.fence_margin_s * 2"
            ),
        ],
        ["tests/unit/settings/test_resolve.py"],
    ),
    Guard(
        "a statement of a steward takes no longer than its leases allow",
        [
            Change(
                "boot/children.py",
                "                max_statement_s=RENEWALS_A_STATEMENT * settings.renew_interval_s,\n",
                "",
            ),
        ],
        [
            "tests/faults/test_neighbours.py"
            "::test_41_no_renewal_waits_for_a_reset_that_takes_longer_than_the_lease"
        ],
    ),
)
