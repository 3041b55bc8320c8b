"""Turns what a Python task returned or raised into an outcome. Nothing here raises, whatever the task returned."""

from __future__ import annotations

import json
import traceback
from types import TracebackType
from typing import Any

from reproq_prefork.executors.contract import Stop
from reproq_prefork.executors.program_output import MAX_MESSAGE_CHARS, MAX_RETRY_AFTER_S, MAX_TRACEBACK_CHARS
from reproq_prefork.model.limits import MAX_RESULT_BYTES
from reproq_prefork.model.outcome import (
    Abandoned,
    Cancelled,
    Failure,
    FailureKind,
    Interrupted,
    Outcome,
    Snoozed,
    Success,
)
from reproq_prefork.spec.parse import parse_json
from reproq_prefork.spec.rules import MAX_DEPTH, MAX_DIGITS, SpecError
from reproq_prefork.task_exceptions import Discard, Retry, Snooze, verdict_of

# A shorter text cannot nest deeper than a value may, and cannot have more digits than a number may.
SHORTEST_DOUBTFUL_CHARS = min(2 * MAX_DEPTH, MAX_DIGITS)

_NOTHING = Success("null")
_encoded = json.JSONEncoder(allow_nan=False, ensure_ascii=False).encode
_OWN_PACKAGE = __name__.partition(".")[0] + "."


def outcome_of_result(result: object) -> Success | Failure:
    """The result as JSON text that PostgreSQL can store, or a failure if it cannot be stored."""
    if result is None:
        return _NOTHING  # most tasks return nothing
    try:
        text = _encoded(result)
        if len(text) < SHORTEST_DOUBTFUL_CHARS and text.isascii() and "\\u" not in text:
            return Success(text)
        encoded = text.encode("utf-8")
        if len(encoded) > MAX_RESULT_BYTES:
            return _unusable(f"is {len(encoded):,} bytes of JSON, the limit is {MAX_RESULT_BYTES:,}")
        parse_json(text)
    except UnicodeEncodeError:
        return _unusable("holds a lone surrogate, which is half a character and cannot be written as UTF-8")
    except SpecError as error:
        return _unusable(f"cannot be kept: {error}")
    except Exception as error:  # methods of the result may raise too
        return _unusable(f"is not JSON: {_message(error)}")
    return Success(text)


def outcome_of_error(error: BaseException, stop: Stop | None) -> Outcome:
    """The outcome of a task that raised. `stop`: why it was asked to end before, if it was.

    A task decides to snooze, as it decides what it returns, so a Snooze counts even after the task was asked to
    end. But a run is not snoozed if somebody has cancelled it, or if it belongs to another worker now.
    """
    said = verdict_of(error)
    if isinstance(said, Snooze) and stop not in (Stop.CANCEL, Stop.LEASE):
        return Snoozed(said.after_s, storable(str(said))[:MAX_MESSAGE_CHARS])
    match stop:
        case Stop.CANCEL:
            return Cancelled(stop.value)
        case Stop.QUIT:
            return Interrupted(stop.value)
        case Stop.LEASE:
            return Abandoned(stop.value)
        case Stop.DEADLINE:
            return _failure(FailureKind.TIMEOUT, stop.value, error)
        case None:
            return _failure(FailureKind.FAILED, _message(error), error)


def failure_of(error: BaseException, message: str) -> Failure:
    """A failed attempt that may be retried, with our own sentence about `error`."""
    return _failure(FailureKind.FAILED, message, error)


def _failure(kind: FailureKind, message: str, error: BaseException) -> Failure:
    return Failure(
        kind=kind,
        message=storable(message)[:MAX_MESSAGE_CHARS],
        exception=dotted_name(type(error)),
        traceback=traceback_of(error),
        retry=not isinstance(verdict_of(error), Discard),
        retry_after_s=_retry_after_s(error),
    )


def _retry_after_s(error: BaseException) -> float | None:
    said = verdict_of(error)
    if not isinstance(said, Retry) or said.after_s is None:
        return None
    return min(said.after_s, MAX_RETRY_AFTER_S)


def _unusable(why: str) -> Failure:
    # The task has done its work, so it must not do it again.
    message = storable(f"the result of the task {why}")[:MAX_MESSAGE_CHARS]
    return Failure(FailureKind.UNUSABLE_OUTPUT, message, retry=False)


def _message(error: BaseException) -> str:
    name = type(error).__name__
    try:
        said = str(error)
    except Exception:
        return f"{name} (it cannot be shown)"
    if isinstance(error, SystemExit | KeyboardInterrupt):
        return f"{name}: {said}" if said else name  # a number alone explains nothing
    return said or name


def traceback_of(error: BaseException) -> str:
    """The end of the traceback, beginning at the task's own code."""
    try:
        lines = traceback.format_exception(type(error), error, _from_the_task_on(error.__traceback__))
        return storable("".join(lines))[-MAX_TRACEBACK_CHARS:]
    except Exception as trouble:
        return f"{dotted_name(type(error))}: its traceback cannot be written ({type(trouble).__name__})"


def _from_the_task_on(trace: TracebackType | None) -> TracebackType | None:
    """The traceback without the frames that lead to the task; all of it if there are no other frames."""
    at = trace
    while at is not None:
        name: Any = at.tb_frame.f_globals.get("__name__", "")
        if not str(name).startswith(_OWN_PACKAGE):
            return at
        at = at.tb_next
    return trace


def dotted_name(kind: type[BaseException]) -> str:
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return storable(name)[:MAX_MESSAGE_CHARS]


def storable(text: str) -> str:
    """The text without what PostgreSQL cannot store: NUL, and half characters of a file name."""
    return text.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
