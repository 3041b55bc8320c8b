"""Write a program that runs a task, in a few lines of Python:

    from reproq_prefork import executor

    def greet(payload):
        return {"greeting": f"Hello, {payload['name']}!"}

    if __name__ == "__main__":
        executor.run(greet)

This keeps the contract in docs/executors.md. Each task starts a new interpreter, so this module imports little.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, NoReturn

from reproq_prefork.task_exceptions import Discard, Retry, Snooze, verdict_of

__all__ = ["Attempt", "Discard", "Retry", "Snooze", "context", "run"]

USAGE_STATUS = 2
STDERR_FD = 2
# A character takes up to six bytes in JSON. With these limits an error fits into the part of standard error that
# is kept.
MAX_MESSAGE_CHARS = 1_000
MAX_TRACEBACK_CHARS = 8_000


class _NotJson(TypeError):
    """The handler returned something that JSON cannot hold. Its work is done, so it must not be done again."""


class Attempt(NamedTuple):
    """Which attempt of which run this is. (Not a dataclass: that takes longer to import than JSON.)"""

    task_id: int
    spec_hash: str
    number: int  # 1 for the first
    claim: int  # grows with each claim of the run: a fencing token
    deadline_unix_s: float | None  # when the task is asked to end; None: never


def context() -> Attempt:
    """What the worker says about this attempt. Raises RuntimeError if no worker has started this process."""
    environ = os.environ
    deadline = environ.get("REPROQ_DEADLINE")
    try:
        return Attempt(
            task_id=int(environ["REPROQ_TASK_ID"]),
            spec_hash=environ["REPROQ_SPEC_HASH"],
            number=int(environ["REPROQ_ATTEMPT"]),
            claim=int(environ["REPROQ_CLAIM"]),
            deadline_unix_s=None if deadline is None else float(deadline),
        )
    except KeyError as missing:
        raise RuntimeError(
            f"{missing.args[0]} is not set: a worker sets it for each task. To try this by hand, set it too"
        ) from None


def run(handler: Callable[[Any], Any]) -> NoReturn:
    """Run the task that this process was started for, and exit.

    `handler` gets the payload as `json.loads` returns it, and returns a value that JSON can hold. It may be an
    `async def`. An exception means a failed attempt; with Discard or Retry the handler says what happens to the
    run. After Snooze the run is executed again later, and this attempt does not count. `sys.exit()` in the handler
    ends it at once: with 0 or nothing the result is null, with anything else the attempt has failed.
    """
    payload = _payload_argument(sys.argv)
    result_fd = _take_result_fd()
    try:
        _write_line(result_fd, _result_of(handler, payload))
    except Exception as error:
        sys.stdout.flush()
        sys.stderr.flush()
        _write_line(STDERR_FD, _error_object(error).encode())
        sys.exit(1)
    sys.exit(0)


def _payload_argument(argv: list[str]) -> bytes:
    """The JSON text after `--payload`, which comes last. The arguments before it belong to the program."""
    if len(argv) < 3 or argv[-2] != "--payload":
        print(
            f"usage: {argv[0].rpartition('/')[2]} --payload JSON\n"
            "       with `-` instead of JSON it is read from standard input",
            file=sys.stderr,
        )
        sys.exit(USAGE_STATUS)
    # As bytes, because JSON is UTF-8 and Python has decoded the arguments with the encoding of the locale.
    return sys.stdin.buffer.read() if argv[-1] == "-" else os.fsencode(argv[-1])


def _take_result_fd() -> int:
    """The descriptor for the result, which programs that the handler starts do not inherit; or standard output."""
    number = os.environ.pop("REPROQ_RESULT_FD", "")
    try:
        os.set_inheritable(int(number), False)
    except (ValueError, OSError):
        # Started by hand, or through a program such as sudo, which closes all descriptors but the first three.
        return sys.stdout.fileno()
    return int(number)


def _result_of(handler: Callable[[Any], Any], payload: bytes) -> bytes:
    """The JSON of what the handler returns. Everything that it printed is written before this returns."""
    try:
        result = handler(_parsed(payload))
        if isinstance(result, Coroutine):
            import asyncio

            result = asyncio.run(result)
    except SystemExit as leaving:
        if leaving.code not in (None, 0):
            raise
        result = None
    sys.stdout.flush()
    try:
        return json.dumps(result, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise _NotJson(f"the result of the task is not JSON: {error}") from error


def _parsed(payload: bytes) -> Any:
    try:
        return json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise Discard(f"the payload cannot be read: {error}") from error


def _error_object(error: Exception) -> str:
    verdict = verdict_of(error)
    if isinstance(verdict, Snooze):
        reason = _storable(str(verdict))[:MAX_MESSAGE_CHARS]
        return json.dumps({"snooze_seconds": verdict.after_s, "message": reason}, ensure_ascii=False)
    import traceback

    said: dict[str, object] = {
        "message": _storable(str(error) or type(error).__name__)[:MAX_MESSAGE_CHARS],
        "exception": _storable(_name_of(TypeError if isinstance(error, _NotJson) else type(error))),
        "traceback": _storable("".join(traceback.format_exception(error)))[-MAX_TRACEBACK_CHARS:],
    }
    if isinstance(verdict, Discard) or isinstance(error, _NotJson):
        said["retry"] = False
    if isinstance(verdict, Retry) and verdict.after_s is not None:
        said["retry_after_seconds"] = verdict.after_s
    return json.dumps(said, ensure_ascii=False)


def _name_of(kind: type[Exception]) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _storable(text: str) -> str:
    """The text without what PostgreSQL cannot store, such as half characters of a file name."""
    return text.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def _write_line(fd: int, text: bytes) -> None:
    """Write `text` as a separate line, whatever was written before it."""
    with open(fd, "wb", closefd=False) as stream:
        stream.write(b"\n" + text + b"\n")
