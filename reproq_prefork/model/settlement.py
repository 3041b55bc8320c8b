"""From the outcome of an attempt to what is written about the run: the whole retry rule, as one function."""

from __future__ import annotations

import json
from typing import Any

from reproq_prefork.model.retry import next_delay_s
from reproq_prefork.model.run import (
    Abandoned,
    Cancelled,
    ClaimedRun,
    Completed,
    Failure,
    FailureKind,
    Interrupted,
    Outcome,
    RetryPolicy,
    Settlement,
    Snoozed,
    Status,
    Success,
    Usage,
    handed_back,
)


def settle(
    run: ClaimedRun, outcome: Outcome, policy: RetryPolicy, random: float, usage: Usage | None = None
) -> Settlement | None:
    """Decide what becomes of `run`; `random` in [0, 1) draws the jitter. None: the row is not ours to write."""
    match outcome:
        case Success(result):
            return Settlement(
                run.id, run.claim, Status.SUCCESSFUL, result=result, last_attempt=usage_text(usage)
            )
        case Failure():
            return _after_failure(run, outcome, policy, random, usage)
        case Cancelled(reason):
            return Settlement(
                run.id,
                run.claim,
                Status.CANCELLED,
                error={"kind": FailureKind.CANCELLED, "message": reason, **(usage_entry(usage) or {})},
            )
        case Interrupted(reason):
            if policy.attempts_allowed(run.max_attempts) > 1:
                return handed_back(run.id, run.claim)
            # At most once: it had started, so it must not start again.
            return Settlement(
                run.id, run.claim, Status.FAILED, error={"kind": FailureKind.SHUTDOWN, "message": reason}
            )
        case Snoozed(after_s):
            # Also where it may start only once: it says itself that it has done nothing that counts.
            return handed_back(run.id, run.claim)._replace(delay_s=after_s)
        case Abandoned() | Completed():
            return None


def is_last_attempt(run: ClaimedRun, failure: Failure, policy: RetryPolicy) -> bool:
    """Whether this failure is the end of the run."""
    return not failure.retry or run.attempt >= policy.attempts_allowed(run.max_attempts)


def _after_failure(
    run: ClaimedRun, failure: Failure, policy: RetryPolicy, random: float, usage: Usage | None
) -> Settlement:
    error = {**error_entry(failure), **(usage_entry(usage) or {})}
    if is_last_attempt(run, failure, policy):
        return Settlement(run.id, run.claim, Status.FAILED, error=error)
    delay_s = failure.retry_after_s
    if delay_s is None:
        base_s = policy.base_s if run.retry_base_s is None else run.retry_base_s
        max_s = policy.max_s if run.retry_max_s is None else run.retry_max_s
        delay_s = next_delay_s(run.attempt, base_s, max_s, random)
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


def usage_text(usage: Usage | None) -> str | None:
    """The entry as JSON text."""
    if usage is None or usage.output is not None:
        return None if usage is None else json.dumps(usage_entry(usage))
    # These are words of ours and numbers, and there may be ten thousand of them in a second.
    return f'{{"exit":"{usage.exit}","cpu_seconds":{usage.cpu_s:.6f},"peak_rss_kib":{usage.peak_rss_kib}}}'


def usage_entry(usage: Usage | None) -> dict[str, Any] | None:
    """What an attempt used, for `task_runs.last_attempt` or its entry in `errors`."""
    if usage is None:
        return None
    entry: dict[str, Any] = {
        "exit": usage.exit,
        "cpu_seconds": round(usage.cpu_s, 6),
        "peak_rss_kib": usage.peak_rss_kib,
    }
    return entry if usage.output is None else {**entry, "output": usage.output}
