"""Turns the output of a finished program into an outcome. Pure: any bytes give an outcome, never an exception.

What reaches the database is JSON that `parse_json` has accepted. It has no NUL, no NaN, no lone surrogate, and no
number that fills the server's memory when it is written out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from reproq_prefork.executors.error_line import error_line
from reproq_prefork.executors.tail import Tail
from reproq_prefork.model.limits import MAX_RESULT_BYTES
from reproq_prefork.model.outcome import Failure, FailureKind, Outcome, Snoozed, Success
from reproq_prefork.spec import canonical_json
from reproq_prefork.spec.parse import parse_json
from reproq_prefork.spec.rules import SpecError
from reproq_prefork.task_exceptions import MAX_SNOOZE_S

MAX_MESSAGE_CHARS = 1_000
MAX_TRACEBACK_CHARS = 32_768
MAX_SHOWN_CHARS = 80
# Keys of the JSON object on stderr that decide what happens to the run.
VERDICT_KEYS = frozenset({"retry", "retry_after_seconds", "snooze_seconds"})
MAX_RETRY_AFTER_S = 365 * 86_400.0


@dataclass(frozen=True, slots=True)
class Output:
    """Everything that a program wrote. `result` is what it wrote to REPROQ_RESULT_FD."""

    exit_status: int  # below 0: minus the number of the signal that ended it
    stdout: Tail
    stderr: Tail
    result: Tail


def outcome_of(output: Output) -> Outcome:
    if output.exit_status == 0:
        return _result(output)
    stderr = readable(output.stderr.bytes())
    said, log = _error_object(output.stderr)
    if output.exit_status < 0:
        kind, fallback = FailureKind.KILLED, f"killed by signal {-output.exit_status}"
    else:
        kind, fallback = FailureKind.FAILED, error_line(stderr) or f"exit status {output.exit_status}"
    message = _text(said, "message", "error")
    snooze_s = said.get("snooze_seconds")
    # A killed program did not reach its end. So a crash counts as an attempt, whatever the program wrote before.
    if output.exit_status > 0 and snooze_s is not None:
        if _is_snooze(snooze_s):
            return Snoozed(float(snooze_s), message or "")
        message = (
            f"snooze_seconds must be a number of seconds from 0 to {MAX_SNOOZE_S:.0f} (a hundred years), not "
            f"{canonical_json(snooze_s)[:MAX_SHOWN_CHARS]}"
        )
    exception = _text(said, "exception", "type")
    traceback = _text(said, "traceback", limit=MAX_TRACEBACK_CHARS)
    return Failure(
        kind=kind,
        message=message or fallback[:MAX_MESSAGE_CHARS],
        exception=exception,
        traceback=traceback,
        stderr=(readable(log) if _is_kept(said, message, exception, traceback) else stderr) or None,
        retry=said.get("retry") is not False,
        retry_after_s=_retry_after_s(said),
    )


def _result(output: Output) -> Outcome:
    if output.result.total:
        return _parsed(output.result, "what it wrote to REPROQ_RESULT_FD", output.stderr, lines=False)
    return _parsed(output.stdout, "its standard output", output.stderr, lines=True)


def _parsed(written: Tail, where: str, stderr: Tail, *, lines: bool) -> Outcome:
    """Parse all of `written` as JSON, or else its last line that is not empty, because programs also log.

    A program that wrote nothing has the result `null`. Output that cannot be used ends the run: the program says
    that it has done its work, so it must not do it again.
    """
    whole = written.bytes().strip()
    if not whole and written.is_whole:
        return Success("null")
    candidates = [whole] if written.is_whole else []
    if lines and b"\n" in whole:
        candidates.append(whole.rpartition(b"\n")[2])
    reason = _too_large(where, written.total)
    for candidate in candidates:
        if len(candidate) > MAX_RESULT_BYTES:
            reason = _too_large(where, len(candidate))
            continue
        try:
            parse_json(candidate)
        except SpecError as error:
            reason = f"{where} is not usable JSON: {error}"
            continue
        return Success(candidate.decode("utf-8"))
    return Failure(
        kind=FailureKind.UNUSABLE_OUTPUT,
        message=reason[:MAX_MESSAGE_CHARS],
        stderr=readable(stderr.bytes()) or None,
        retry=False,
    )


def _too_large(where: str, size: int) -> str:
    return f"{where} is {size:,} bytes, the limit is {MAX_RESULT_BYTES:,}"


def _error_object(stderr: Tail) -> tuple[Mapping[str, Any], bytes]:
    """The JSON object that is all of stderr or its last line, and the text before it.

    Without such an object: an empty one, and all of the text.
    """
    whole = stderr.bytes().strip()
    before, _, last = whole.rpartition(b"\n")
    for candidate, log in ((whole, b""), (last, before)):
        if candidate.startswith(b"{"):
            try:
                parsed = parse_json(candidate)
            except SpecError:
                continue
            if isinstance(parsed, dict):
                return parsed, log
    return {}, whole


def _is_kept(said: Mapping[str, Any], *parts: str | None) -> bool:
    """Whether the outcome holds everything in the object, uncut, so that its text need not be kept too."""
    return all(value is None or value in parts for key, value in said.items() if key not in VERDICT_KEYS)


def _text(said: Mapping[str, Any], *names: str, limit: int = MAX_MESSAGE_CHARS) -> str | None:
    for name in names:
        value = said.get(name)
        if isinstance(value, str) and value:
            return value[-limit:] if name == "traceback" else value[:limit]
    return None


def _is_snooze(value: object) -> bool:
    return (
        isinstance(value, (int, Decimal)) and not isinstance(value, bool) and bool(0 <= value <= MAX_SNOOZE_S)
    )


def _retry_after_s(said: Mapping[str, Any]) -> float | None:
    value = said.get("retry_after_seconds")
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)) or value < 0:
        return None
    return float(min(Decimal(value), Decimal(MAX_RETRY_AFTER_S)))


def readable(raw: bytes) -> str:
    """Turn any bytes into text that PostgreSQL can store: without NUL, and valid UTF-8."""
    return raw.decode("utf-8", errors="replace").replace("\0", "\N{REPLACEMENT CHARACTER}").strip()
