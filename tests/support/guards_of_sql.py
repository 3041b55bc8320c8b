"""Guards of the SQL: locks, fences, leases, and what is owed when a run ends."""

from __future__ import annotations

from collections.abc import Sequence

from tests.chaos.builds import Change
from tests.support.guard import Guard

LOCKED = "tests/integration/test_locked_rows.py"
LOST = "tests/integration/test_lost_holders.py"
LEASES = "tests/integration/test_lease_machine.py::test_in_a_short_search_the_table_agrees_with_the_model"
OWED = "tests/integration/test_owed_ends.py"
LONE = "tests/integration/test_lone_claims.py"
COPY = "tests/integration/test_runs.py::test_a_copy_is_the_same_run_again_from_the_start"

SQL: Sequence[Guard] = (
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
        [Change("store/sql/worker/finish_and_claim.sql", "and run.claims = settlement.claim and", "and")],
        [LOST, LEASES],
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
        [LOST, LEASES],
    ),
    Guard(
        "a sweep asks for the worker's lease too",
        [Change("store/sql/parts/expired_run.sql", "and worker.lease_expires_at >= now()", "and false")],
        [LOST],
    ),
    Guard(
        "a lease that has ended is not renewed",
        [Change("store/sql/steward/renew_leases.sql", " and lease_expires_at > now()", "")],
        [LOST, LEASES],
    ),
    Guard(
        "a reconnect does not revive a lease",
        [Change("store/sql/worker/reconnect_worker.sql", " and worker.lease_expires_at > now()", "")],
        [LOST, LEASES],
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
        "a task says of its progress by its own claim",
        [
            Change("store/sql/worker/save_metadata.sql", " and claims = %(claim)s", ""),
        ],
        [LOST],
    ),
    Guard(
        "a retry that ends a cancelled run owes that end",
        [
            Change(
                "store/sql/worker/finish_and_claim.sql",
                "            then now()\n        end,\n        leased_by",
                "            then null\n        end,\n        leased_by",
            ),
        ],
        [OWED],
    ),
    Guard(
        "an atomic end wakes who waits for it",
        [
            Change("store/sql/worker/complete_run.sql", "(select count(*) from notified)", "0"),
        ],
        [OWED],
    ),
    Guard(
        "a lost run that is failed owes its end",
        [
            Change(
                "store/sql/steward/fail_lost_run.sql",
                "case when task_path is not null then now() end",
                "null",
            ),
        ],
        [OWED],
    ),
    Guard(
        "a run that nobody can claim owes its end",
        [
            Change("store/sql/worker/fail_run.sql", "case when task_path is not null then now() end", "null"),
        ],
        [OWED],
    ),
    Guard(
        "a copy keeps its longest wait",
        [
            Change(
                "store/sql/runs/requeue_run.sql",
                "retry_base_seconds, retry_max_seconds, id",
                "retry_base_seconds, null, id",
            ),
        ],
        [COPY],
    ),
    Guard(
        "a copy keeps its first wait",
        [
            Change(
                "store/sql/runs/requeue_run.sql",
                "retry_base_seconds, retry_max_seconds, id",
                "null, retry_max_seconds, id",
            ),
        ],
        [COPY],
    ),
    Guard(
        "a copy keeps its executor",
        [
            Change(
                "store/sql/runs/requeue_run.sql",
                "executor, atomic,\n    retry_base_seconds, retry_max_seconds, id",
                "null, atomic,\n    retry_base_seconds, retry_max_seconds, id",
            ),
        ],
        [COPY],
    ),
    Guard(
        "a copy stays atomic",
        [
            Change(
                "store/sql/runs/requeue_run.sql",
                "executor, atomic,\n    retry_base_seconds, retry_max_seconds, id",
                "executor, false,\n    retry_base_seconds, retry_max_seconds, id",
            ),
        ],
        [COPY],
    ),
    Guard(
        "only a held lease claims one run",
        [Change("store/sql/worker/claim_run.sql", " and (select holds_lease from holder)", "")],
        [LONE],
    ),
    Guard(
        "a lone claim passes by a locked run",
        [Change("store/sql/worker/claim_run.sql", "for update skip locked", "for update")],
        [LONE],
    ),
    Guard(
        "a lone claim is read by its claim",
        [Change("store/sql/worker/read_claimed.sql", " and claims = %(claim)s::bigint", "")],
        [LONE],
    ),
    Guard(
        "a server process with a reused pid is not ended",
        [
            Change(
                "store/sql/steward/terminate_backend.sql",
                " and activity.backend_start = worker.backend_started",
                "",
            )
        ],
        [LONE],
    ),
    Guard(
        "a lease that no claim gives has ended",
        [
            Change(
                "store/sql/parts/expired_run.sql",
                "not between now() and now() + interval '2 days', true)",
                "< now(), true)",
            )
        ],
        [LOST],
    ),
    Guard(
        "a shutdown puts back no run that may start once on this host",
        [
            Change(
                "store/sql/steward/reset_worker.sql",
                "least(max_attempts, %(max_attempts_ceiling)s::integer) as attempts_allowed",
                "max_attempts as attempts_allowed",
            )
        ],
        [LOST],
    ),
)
