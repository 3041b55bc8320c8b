"""The options of a run when it is enqueued. They are checked here, before anything is sent.

The limits are those of the table and of the options, or narrower if a value would be useless: a queue that
`--queue` cannot name, a time that Python cannot read back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from reproq_prefork.errors import ExitStatus, ReproqError
from reproq_prefork.model.limits import (
    MAX_ATTEMPTS,
    MAX_DELAY_S,
    MAX_PAYLOAD_BYTES,
    MAX_PRIORITY,
    MAX_QUEUE_NAME_CHARS,
    MAX_TIMEOUT_S,
    MAX_UNIQUE_KEY_BYTES,
    MIN_PRIORITY,
    SHORTEST_S,
)
from reproq_prefork.model.stored_values import EARLIEST, LATEST
from reproq_prefork.spec import Spec, SpecError
from reproq_prefork.spec.rules import check_string
from reproq_prefork.text.printable import quoted

PYTHON_EXECUTORS = ("fork", "inline")

DEFAULT_QUEUE = "default"
DEFAULT_PRIORITY = 0
DEFAULT_MAX_ATTEMPTS = 3

RunAfter = datetime | timedelta

# The decorators of Python tasks accept these: they know the call as well as the run.
Seconds = float | timedelta
Unique = bool | Callable[..., str | None]


class InvalidRun(ReproqError, ValueError):
    """An argument of `enqueue` or `requeue` is not valid. Nothing was sent to the database."""

    exit_status = ExitStatus.USAGE


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run as it will be inserted. Every value was checked. At most one of the two times is set."""

    spec: Spec
    queue_name: str
    priority: int
    run_after: datetime | None
    delay_s: float | None
    max_attempts: int
    timeout_s: float | None
    unique_key: str | None
    executor: str | None = None
    atomic: bool = False
    retry_base_s: float | None = None
    retry_max_s: float | None = None

    @classmethod
    def of(
        cls,
        payload: object,
        *,
        queue_name: str = DEFAULT_QUEUE,
        priority: int = DEFAULT_PRIORITY,
        run_after: RunAfter | None = None,
        max_attempts: int = DEFAULT_MAX_ATTEMPTS,
        timeout_seconds: float | None = None,
        unique_key: str | None = None,
        executor: str | None = None,
        atomic: bool = False,
        retry_base_seconds: float | None = None,
        retry_max_seconds: float | None = None,
    ) -> NewRun:
        """Raises InvalidRun, or SpecError if `payload` is wrong."""
        spec = payload if isinstance(payload, Spec) else Spec.of(payload)
        if len(spec.canonical) > _MAX_CHARS_THAT_FIT:
            _check_size(spec)
        moment, delay_s = _due(run_after)
        return cls(
            spec=spec,
            queue_name=_queue_name(queue_name),
            priority=_whole_number("priority", priority, MIN_PRIORITY, MAX_PRIORITY),
            run_after=moment,
            delay_s=delay_s,
            max_attempts=_whole_number("max_attempts", max_attempts, 1, MAX_ATTEMPTS),
            timeout_s=_seconds("timeout_seconds", timeout_seconds, "no deadline"),
            unique_key=None if unique_key is None else _unique_key(unique_key),
            executor=_executor(executor),
            atomic=bool(atomic),
            retry_base_s=_seconds("retry_base_seconds", retry_base_seconds, "no wait"),
            retry_max_s=_seconds("retry_max_seconds", retry_max_seconds, "no wait"),
        )

    def columns(self) -> dict[str, Any]:
        """The values for an INSERT, by column, without the payload and the time when the run is due."""
        return {
            "queue_name": self.queue_name,
            "spec_hash": self.spec.hash,
            "priority": self.priority,
            "max_attempts": self.max_attempts,
            "timeout_seconds": self.timeout_s,
            "unique_key": self.unique_key,
            "executor": self.executor,
            "atomic": self.atomic,
            "retry_base_seconds": self.retry_base_s,
            "retry_max_seconds": self.retry_max_s,
        }


def seconds_of(value: Seconds | None) -> float | None:
    return value.total_seconds() if isinstance(value, timedelta) else value


def unique_key_of(
    unique: Unique | None, path: str, spec: Spec, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> str | None:
    """The unique key of a call of the task at `path`. `unique` makes it of the arguments; True: of the spec."""
    if callable(unique):
        return unique(*args, **kwargs)
    return f"{path}:{spec.hash}" if unique else None


# At most four bytes per character, and a blank for each of them.
_MAX_CHARS_THAT_FIT = MAX_PAYLOAD_BYTES // 8


def _check_size(spec: Spec) -> None:
    size = len(spec.canonical.encode()) + _blanks(spec.payload)
    if size > MAX_PAYLOAD_BYTES:
        raise SpecError(
            "$",
            f"the payload is {size} bytes and the limit is {MAX_PAYLOAD_BYTES}; store it elsewhere "
            "and send its location",
        )


def _blanks(value: object) -> int:
    """How many blanks the text of jsonb has that canonical JSON does not have. The server counts them too."""
    match value:
        case Mapping():
            own, members = 2 * len(value) - 1, list(value.values())
        case list() | tuple():
            own, members = len(value) - 1, list(value)
        case _:
            return 0
    return max(0, own) + sum(map(_blanks, members))


def _queue_name(name: object) -> str:
    if name is DEFAULT_QUEUE:
        return DEFAULT_QUEUE
    if not isinstance(name, str) or not name:
        raise InvalidRun(f"queue_name must be a string that is not empty, not {_shown(name)}.")
    if len(name) > MAX_QUEUE_NAME_CHARS:
        raise InvalidRun(f"queue_name {quoted(name)} is longer than {MAX_QUEUE_NAME_CHARS} characters.")
    if "," in name or not name.isprintable() or name != name.strip():
        raise InvalidRun(
            f"queue_name {quoted(name)} holds a comma, a character that cannot be printed, or a space at the "
            "start or the end. No worker could take runs from it, since --queue cannot name it."
        )
    return name


def _whole_number(name: str, value: object, minimum: int, maximum: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
        raise InvalidRun(f"{name} must be a whole number from {minimum} to {maximum}, not {_shown(value)}.")
    return int(value)


def _seconds(name: str, seconds: object, zero_means: str) -> float | None:
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise InvalidRun(f"{name} must be a number of seconds, not {_shown(seconds)}.")
    if not math.isfinite(seconds) or not 0 <= seconds <= MAX_TIMEOUT_S:
        raise InvalidRun(
            f"{name} must be from 0 ({zero_means}) to {MAX_TIMEOUT_S:.0f}, not {_shown(seconds)}."
        )
    return max(float(seconds), SHORTEST_S) if seconds else 0.0


def _executor(name: object) -> str | None:
    if name is None or (isinstance(name, str) and name in PYTHON_EXECUTORS):
        return name
    raise InvalidRun(f"executor must be one of {', '.join(PYTHON_EXECUTORS)}, or None, not {_shown(name)}.")


def _unique_key(key: object) -> str:
    if not isinstance(key, str) or not key:
        raise InvalidRun(f"unique_key must be a string that is not empty, or None, not {_shown(key)}.")
    try:
        check_string(key, ())
    except SpecError as error:
        raise InvalidRun(f"unique_key {quoted(key)} cannot be stored: {error.why}.") from None
    if len(key.encode()) > MAX_UNIQUE_KEY_BYTES:
        raise InvalidRun(
            f"unique_key {quoted(key)} is longer than {MAX_UNIQUE_KEY_BYTES} bytes; use a hash of it."
        )
    return key


def _due(run_after: object) -> tuple[datetime | None, float | None]:
    if run_after is None:
        return None, None
    if isinstance(run_after, timedelta):
        delay_s = run_after.total_seconds()
        if not 0 <= delay_s <= MAX_DELAY_S:
            raise InvalidRun(f"run_after must be between 0 and 100 years from now, not {run_after}.")
        return None, delay_s
    if not isinstance(run_after, datetime):
        raise InvalidRun(f"run_after must be a datetime or a timedelta, not {_shown(run_after)}.")
    if run_after.utcoffset() is None:
        raise InvalidRun(
            f"run_after {run_after.isoformat()} has no time zone, so its moment is not known; "
            "use datetime.now(UTC), or a timedelta from now."
        )
    if not EARLIEST <= run_after <= LATEST:
        raise InvalidRun(
            f"run_after {run_after.isoformat()} is not in the years {EARLIEST.year} to {LATEST.year} (UTC)."
        )
    return run_after, None


def _shown(value: object) -> str:
    """`value` for an error: of bounded length, and without an error of its own for a huge number."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**30:
        return "a number of more than 30 digits"
    return quoted(value) if isinstance(value, str) else quoted(repr(value))[1:-1]
