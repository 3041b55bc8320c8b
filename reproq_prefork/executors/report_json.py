"""The report that the process of a forked task sends to its worker at its end: one JSON object on its own pipe.

    {"outcome": "Success", "values": {"result": "{\\"sum\\": 3}"}, "announced": false}

The process may be killed in the middle of a word, and the task's own code may have written to the pipe. So
anything that is not such an object counts as no report.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from reproq_prefork.model.limits import MAX_RESULT_BYTES
from reproq_prefork.model.outcome import (
    Abandoned,
    AttemptReport,
    Cancelled,
    Completed,
    Failure,
    FailureKind,
    Interrupted,
    Outcome,
    Snoozed,
    Success,
)
from reproq_prefork.task_exceptions import MAX_SNOOZE_S

# Each quote and backslash of a result becomes two bytes. The rest is space for the description of a failure.
MAX_REPORT_BYTES = 2 * MAX_RESULT_BYTES + 512 * 1024

_OUTCOMES: dict[str, type[Outcome]] = {
    kind.__name__: kind for kind in (Success, Failure, Cancelled, Completed, Interrupted, Abandoned, Snoozed)
}


_FIELDS = {kind: tuple(field.name for field in dataclasses.fields(kind)) for kind in _OUTCOMES.values()}
_ENCODER = json.JSONEncoder(ensure_ascii=False)


def dump_report(report: AttemptReport) -> bytes:
    """Encode the report without the usage, because the process that waits for this one knows it better."""
    outcome = report.outcome
    said = {
        "outcome": type(outcome).__name__,
        "values": {name: getattr(outcome, name) for name in _FIELDS[type(outcome)]},
        "announced": report.announced,
    }
    return _ENCODER.encode(said).encode(errors="replace")


def load_report(written: bytes) -> AttemptReport | None:
    """Decode a report. None: it is not complete."""
    try:
        said = json.loads(written)
        outcome = _outcome(_OUTCOMES[said["outcome"]], said["values"])
        announced = said["announced"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return AttemptReport(outcome, announced=announced is True)


def _outcome(kind: type[Outcome], values: dict[str, Any]) -> Outcome:
    seconds: Any = None
    if kind is Failure:
        values = {**values, "kind": FailureKind(values["kind"])}
        seconds = values["retry_after_s"]
        texts = [values[name] for name in ("message", "exception", "traceback", "stderr")]
    elif kind is Snoozed:
        seconds = values["after_s"]
        if seconds is None:
            raise ValueError("not a number of seconds")
        texts = [values["reason"]]
    else:
        texts = list(values.values())
    if seconds is not None and (isinstance(seconds, bool) or not 0 <= seconds <= MAX_SNOOZE_S):
        raise ValueError("not a number of seconds")
    if any(not (isinstance(text, str) or (kind is Failure and text is None)) for text in texts):
        raise TypeError("not a text")
    return kind(**values)
