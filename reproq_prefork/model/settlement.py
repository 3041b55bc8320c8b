"""Turns the outcome of an attempt into what is written about the run. The whole retry rule is one function."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

from reproq_prefork.model.outcome import (
    Abandoned,
    Cancelled,
    Completed,
    Failure,
    FailureKind,
    Interrupted,
    Outcome,
    Snoozed,
    Success,
    Usage,
)
from reproq_prefork.model.run import ClaimedRun, Status, Token

# 2^64 times any useful base is above every limit; with more doublings a float would overflow.
_MAX_DOUBLINGS = 64


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    base_s: float
    max_s: float
    max_attempts_ceiling: int | None = None

    def attempts_allowed(self, max_attempts: int) -> int:
        return (
            max_attempts
            if self.max_attempts_ceiling is None
            else min(max_attempts, self.max_attempts_ceiling)
        )


class Settlement(NamedTuple):
    """What one statement writes about a run whose attempt ended. `status` PENDING: it will run again."""

    run_id: int
    claim: int
    status: Status
    result: str | None = None  # JSON text
    error: dict[str, Any] | None = None  # the entry for `errors`; the server adds attempt, worker and times
    delay_s: float | None = None  # until it is due again; None does not change its due time
    refunded: bool = False  # the attempt does not count
    last_attempt: str | None = None  # JSON text: the usage of an attempt that succeeded
    finish_due: bool = False  # if the run ends now, its end must still be announced to the application

    @property
    def token(self) -> Token:
        return self.run_id, self.claim


def handed_back(run_id: int, claim: int) -> Settlement:
    """The run was claimed and never started, or was interrupted: as if it had not been claimed."""
    return Settlement(run_id, claim, Status.PENDING, refunded=True)


def settle(
    run: ClaimedRun, outcome: Outcome, policy: RetryPolicy, random: float, usage: Usage | None = None
) -> Settlement | None:
    """Decide what happens to `run`. `random` in [0, 1) gives the jitter. None: we may not write the row."""
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
            # At most once: the run had started, so it must not start again.
            return Settlement(
                run.id, run.claim, Status.FAILED, error={"kind": FailureKind.SHUTDOWN, "message": reason}
            )
        case Snoozed(after_s):
            # Also if it may start only once: the task itself says that it has done nothing that counts.
            return handed_back(run.id, run.claim)._replace(delay_s=after_s)
        case Abandoned() | Completed():
            return None


def is_last_attempt(run: ClaimedRun, failure: Failure, policy: RetryPolicy) -> bool:
    """Whether this failure ends the run."""
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
    """The entry of `task_runs.errors`, without empty values."""
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
    # It holds only our own words and numbers, and ten thousand may be made in a second.
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


def next_delay_s(attempt: int, base_s: float, max_s: float, random: float) -> float:
    """The seconds to wait after attempt number `attempt` (from 1) has failed. `random` is drawn from [0, 1).

    Exponential backoff with full jitter: the limit doubles with each attempt, from `base_s` up to `max_s`, and the
    delay is drawn evenly from the whole range below it. Marc Brooker compared the variants on the AWS architecture
    blog ("Exponential Backoff And Jitter"). If many tasks fail together, a draw from the whole range gives fewer
    collisions and less work than jitter around the limit. The price: a single delay may be near zero.
    """
    if attempt < 1:
        raise ValueError(f"attempts count from 1, not {attempt}")
    return random * min(max_s, base_s * 2.0 ** min(attempt - 1, _MAX_DOUBLINGS))
