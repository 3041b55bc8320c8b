"""The guards of the code that no test may do without, and the tests that see each one go.

A guard is a line that only matters on a bad day: a lock, a margin, a condition for a late reply. Without it all
goes on working until that day. `make mutants` takes out one at a time: at least one of its tests must fail then.

Add a guard here when you write one. `Change.old` must be in its file exactly once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.chaos.builds import Change


@dataclass(frozen=True, slots=True)
class Guard:
    """`changes` take it out; at least one of `tests` (arguments of pytest) must fail then."""

    name: str
    changes: Sequence[Change]
    tests: Sequence[str]


LOCKED = "tests/integration/test_locked_rows.py"
LOST = "tests/integration/test_lost_holders.py"
LEASES = "tests/integration/test_lease_machine.py::test_a_short_search_finds_the_table_as_the_model_says"

GUARDS: Sequence[Guard] = (
    Guard(
        "a claim passes by a locked run",
        [
            Change(
                "store/sql/worker/finish_and_claim.sql",
                "limit %(max_runs)s::integer\n            for update skip locked",
                "limit %(max_runs)s::integer\n            for update",
            )
        ],
        [LOCKED],
    ),
    Guard(
        "a sweep passes by a locked run",
        [Change("store/sql/steward/sweep_expired.sql", "for update of run skip locked", "for update of run")],
        [LOCKED],
    ),
    Guard(
        "a reset waits for the lock of a run",
        [Change("store/sql/steward/reset_worker.sql", "    for update\n", "")],
        [LOCKED],
    ),
    Guard(
        "a hand-back waits for the lock of a run",
        [Change("store/sql/steward/hand_back_waiting.sql", "    for update of run\n", "")],
        [LOCKED],
    ),
    Guard(
        "a dead worker's run fails at the host's ceiling of attempts",
        [
            Change(
                "store/sql/steward/reset_worker.sql",
                "attempts >= least(max_attempts, %(max_attempts_ceiling)s::integer) as is_last_attempt",
                "attempts >= max_attempts as is_last_attempt",
            )
        ],
        [LOST],
    ),
    Guard(
        "a swept run fails at the host's ceiling of attempts",
        [
            Change(
                "store/sql/steward/sweep_expired.sql",
                "run.attempts >= least(run.max_attempts, %(max_attempts_ceiling)s::integer)",
                "run.attempts >= run.max_attempts",
            )
        ],
        [LOST],
    ),
    Guard(
        "a finish names the claim",
        [Change("store/sql/worker/finish_and_claim.sql", "and run.claims = ending.claim and", "and")],
        [LEASES],
    ),
    Guard(
        "an atomic end names the claim",
        [Change("store/sql/worker/complete_run.sql", "and claims = %(claim)s and", "and")],
        [LOST],
    ),
    Guard(
        "only a held lease claims",
        [
            Change(
                "store/sql/worker/finish_and_claim.sql",
                "where (select holds_lease from holder)",
                "where true",
            )
        ],
        [LEASES],
    ),
    Guard(
        "a sweep asks for the worker's lease too",
        [Change("store/sql/steward/sweep_expired.sql", "and worker.lease_expires_at >= now()", "and false")],
        [LOST],
    ),
    Guard(
        "a lease that has ended is not renewed",
        [Change("store/sql/steward/renew_leases.sql", " and lease_expires_at > now()", "")],
        [LEASES],
    ),
    Guard(
        "a reconnect does not revive a lease",
        [Change("store/sql/worker/reconnect_worker.sql", " and worker.lease_expires_at > now()", "")],
        [LEASES],
    ),
    Guard(
        "a cancelled run does not go back to PENDING",
        [
            Change(
                "store/sql/steward/reset_worker.sql",
                "when cancel_requested then 'CANCELLED'",
                "when false then 'CANCELLED'",
            )
        ],
        [LEASES, LOCKED],
    ),
    Guard(
        "an announced cancel is acted on",
        [Change("steward/loop.py", "if self._notice_cancels.concerns(news.cancelled_at):", "if False:")],
        [
            "tests/integration/test_cancel.py"
            "::test_a_cancel_that_is_announced_need_not_wait_for_the_steward_to_look"
        ],
    ),
    Guard(
        "a tree is stopped before it is killed",
        [Change("unix/proc.py", "send_signal(pid, signal.SIGSTOP)", "pass")],
        ["tests/unit/unix/test_proc.py"],
    ),
    Guard(
        "a worker ends its task before its lease is over",
        [
            Change(
                "worker/task_watch.py",
                "if self._panel.lease().lost or now >= self._panel.lease_end_ns():",
                "if self._panel.lease().lost:",
            )
        ],
        [
            "tests/unit/worker/test_task_watch.py",
            "tests/faults/test_master_faults.py"
            "::test_09_without_a_steward_a_worker_ends_its_task_before_its_lease_is_over",
        ],
    ),
)
