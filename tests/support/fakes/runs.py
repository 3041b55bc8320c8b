"""Claimed runs that no database has seen."""

from __future__ import annotations

import json
from datetime import datetime

from reproq_prefork.model.run import ClaimedRun

RUN = ClaimedRun(
    7,
    3,
    "{}",
    "0" * 64,
    None,
    "default",
    attempt=1,
    max_attempts=3,
    timeout_s=None,
    history_json='[null, "2026-01-01T00:00:00+00:00", null, null, []]',
)


def enqueued_at(run: ClaimedRun, moment: datetime, *, run_after: datetime | None = None) -> ClaimedRun:
    times = [None if time is None else time.isoformat() for time in (run_after, moment)]
    return run._replace(history_json=json.dumps([*times, None, None, []]))


def a_run(payload: str = "{}", **changes: object) -> ClaimedRun:
    values: dict[str, object] = {
        "id": 7,
        "claim": 11,
        "payload": payload,
        "spec_hash": "ab" * 32,
        "task_path": None,
        "queue_name": "default",
        "attempt": 2,
        "max_attempts": 3,
        "timeout_s": None,
    }
    return ClaimedRun(**{**values, **changes})  # type: ignore[arg-type]
