"""What to write about a run instead if the server refuses its end."""

from __future__ import annotations

from collections.abc import Iterator

from reproq_prefork.executors.program_output import MAX_MESSAGE_CHARS
from reproq_prefork.model.outcome import FailureKind
from reproq_prefork.model.run import Status
from reproq_prefork.model.settlement import Settlement

SMALL_MESSAGE_CHARS = 200


def smaller_ends(
    wanted: Settlement, reason: str, *, value_refused: bool, is_python: bool, is_cancelled: bool
) -> Iterator[Settlement]:
    """What to write instead of `wanted`, which the server refuses with `reason`. Each is smaller than the one
    before.

    First comes the same end without its description: no output, no usage, only the first words of an error. A
    result is never dropped silently: a run whose result cannot be stored is FAILED, and is not executed again. The
    last one is the smallest write that ends a run. `is_cancelled`: somebody has cancelled the run, so it may also
    end as CANCELLED.
    """
    less = wanted._replace(
        result=None if wanted.result == "null" else wanted.result,
        last_attempt=None,
        error=None if wanted.error is None else _first_words(wanted.error),
    )
    if less != wanted:
        yield less
    last = Settlement(wanted.run_id, wanted.claim, Status.FAILED, finish_due=is_python)
    if is_cancelled:
        cancelled = last._replace(status=Status.CANCELLED)
        yield cancelled._replace(error=_entry(FailureKind.CANCELLED, "the task was cancelled"))
        yield cancelled
    if value_refused and wanted.result is not None:
        error = _entry(FailureKind.UNUSABLE_OUTPUT, f"the database refused the result: {reason}")
    else:
        error = _entry(
            FailureKind.REFUSED,
            f"the database refused to record the end of the run ({wanted.status}): {reason}",
        )
    yield last._replace(error=error)
    yield last


def _first_words(error: dict[str, object]) -> dict[str, object]:
    return _entry(str(error.get("kind")), str(error.get("message"))[:SMALL_MESSAGE_CHARS])


def _entry(kind: str, message: str) -> dict[str, object]:
    return {"kind": str(kind), "message": message[:MAX_MESSAGE_CHARS]}
