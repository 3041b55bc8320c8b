"""From the outcome of an attempt to what is written about the run: the whole retry rule, as one function."""

from __future__ import annotations

from typing import Any

from reproq_prefork.retry import next_delay_s
from reproq_prefork.task import (
    Abandoned,
    ClaimedRun,
    Failure,
    FailureKind,
    Interrupted,
    Outcome,
    RetryPolicy,
    Settlement,
    Status,
    Success,
    handed_back,
)


def settle(run: ClaimedRun, outcome: Outcome, policy: RetryPolicy, random: float) -> Settlement | None:
    """Decide what becomes of `run`; `random` in [0, 1) draws the jitter. None: the row is not ours to write."""
    match outcome:
        case Success(result):
            return Settlement(run.id, run.claim, Status.SUCCESSFUL, result=result)
        case Failure():
            return _after_failure(run, outcome, policy, random)
        case Interrupted(reason):
            if policy.attempts_allowed(run.max_attempts) > 1:
                return handed_back(run.id, run.claim)
            # At most once: it had started, so it must not start again.
            return Settlement(
                run.id, run.claim, Status.FAILED, error={"kind": FailureKind.SHUTDOWN, "message": reason}
            )
        case Abandoned():
            return None


def _after_failure(run: ClaimedRun, failure: Failure, policy: RetryPolicy, random: float) -> Settlement:
    error = error_entry(failure)
    if not failure.retry or run.attempt >= policy.attempts_allowed(run.max_attempts):
        return Settlement(run.id, run.claim, Status.FAILED, error=error)
    delay_s = failure.retry_after_s
    if delay_s is None:
        delay_s = next_delay_s(run.attempt, policy.base_s, policy.max_s, random)
    return Settlement(run.id, run.claim, Status.PENDING, error=error, delay_s=delay_s)


def error_entry(failure: Failure) -> dict[str, Any]:
    """The entry of `task_runs.errors`, without what was not said."""
    entry = {
        "kind": failure.kind.value,
        "message": failure.message,
        "exception": failure.exception,
        "traceback": failure.traceback,
        "stderr": failure.stderr,
    }
    return {key: value for key, value in entry.items() if value is not None}
