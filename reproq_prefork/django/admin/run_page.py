"""Everything about one run, for its page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reproq_prefork.django.admin.presentation import (
    Fact,
    attempts,
    bounded,
    number_of_attempts,
    pretty_json,
    short_duration,
    shown_time,
    usage,
)
from reproq_prefork.model.run import Status, TaskRun
from reproq_prefork.text.duration import format_duration


def run_context(run: TaskRun, replays: Sequence[tuple[int, Status]]) -> dict[str, Any]:
    return {
        "run": run,
        "status": run.status.value.capitalize(),
        "task": bounded(run.task_path) if run.task_path else "",
        "queue": bounded(run.queue_name),
        "options": _options(run),
        "times": _times(run),
        "took": _took(run),
        "payload": pretty_json(run.payload),
        "result": pretty_json(run.result) if run.status is Status.SUCCESSFUL else None,
        "metadata": None if run.metadata is None else pretty_json(run.metadata),
        "attempts": attempts(run.errors),
        "all_attempts": number_of_attempts(run.errors),
        "last_attempt": list(usage(run.last_attempt)),
        "last_output": _output(run.last_attempt),
        "replays": replays,
        "is_pending": run.status is Status.PENDING,
        "is_live": not run.is_finished,
    }


def _options(run: TaskRun) -> list[Fact]:
    waits = [each for each in (run.retry_base_seconds, run.retry_max_seconds) if each is not None]
    facts = {
        "Spec hash": run.spec_hash,
        "Unique key": run.unique_key,
        "Timeout": _timeout(run.timeout_seconds),
        "Waits before a retry": " to ".join(map(format_duration, waits)),
        "Executor": run.executor,
        "Atomic": "yes, it completes in its own transaction" if run.atomic else "",
        "Held by": run.leased_by,
        "Attempted by": ", ".join(run.worker_ids),
    }
    return [Fact(name, bounded(value)) for name, value in facts.items() if value]


def _timeout(seconds: float | None) -> str:
    if seconds is None:
        return "the worker's"
    return format_duration(seconds) if seconds else "none"


def _times(run: TaskRun) -> list[tuple[str, str]]:
    times = {
        "Enqueued": run.enqueued_at,
        "Due after": run.run_after,
        "First started": run.started_at,
        "Last started": run.last_attempted_at if run.attempts > 1 else None,
        "Asked to stop": run.cancel_requested_at,
        "Lease ends": run.lease_expires_at,
        "Finished": run.finished_at,
    }
    return [(name, shown_time(moment)) for name, moment in times.items() if moment is not None]


def _took(run: TaskRun) -> str:
    if run.last_attempted_at is None or run.finished_at is None:
        return ""
    return short_duration(run.finished_at - run.last_attempted_at)


def _output(last_attempt: Any) -> str:
    output = last_attempt.get("output") if isinstance(last_attempt, dict) else None
    return bounded(output) if isinstance(output, str) else ""
