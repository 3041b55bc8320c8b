"""Prints what a command has done, also if standard output cannot be written: a full disk, a closed pipe.

Whoever reads only the exit status must know whether something was committed. So a command that has committed
something never ends as if it had failed because of its output.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Any, TextIO

import click

from reproq_prefork.errors import ExitStatus, ReproqError
from reproq_prefork.text.printable import printable

PROGRAM = "reproq-prefork"

_KEY = f"{__name__}:not_printed"  # in the `meta` of a click context, which a command and its parents share


class NotPrinted(ReproqError):
    """What the command has done is committed, but standard output did not take it. `done` says what it is."""

    exit_status = ExitStatus.NOT_PRINTED

    def __init__(self, done: Sequence[str], reason: str) -> None:
        self.done = tuple(done)
        self.reason = reason
        super().__init__(
            f"This is committed, but could not be printed to standard output ({reason}), so do not do it again: "
            f"{'; '.join(done)}."
        )


def report(line: str, *, done: str | None = None) -> None:
    """Print a line about something that is committed. If that fails, note it, and let the command go on.

    `done` says the same in words, for the error; None: the line itself does.
    """
    meta = click.get_current_context().meta
    noted: NotPrinted | None = meta.get(_KEY)
    before, reason = ((), _print(line)) if noted is None else (noted.done, noted.reason)
    if reason is not None:
        meta[_KEY] = NotPrinted((*before, line if done is None else done), reason)


def take_not_printed(context: click.Context) -> NotPrinted | None:
    """What the command could not report, once."""
    noted: NotPrinted | None = context.meta.pop(_KEY, None)
    return noted


def _print(line: str) -> str | None:
    """Returns None, or why the line cannot be printed."""
    stdout: Any = sys.stdout
    if stdout is None:
        return "it is closed"
    try:
        click.echo(line)
    except (
        OSError,
        ValueError,
    ) as error:  # ValueError: it is closed, or has an encoding without these characters
        _give_up(sys.stdout)
        return getattr(error, "strerror", None) or str(error)
    return None


def broken_output(error: OSError) -> str | None:
    """Why standard output cannot be written, if that is what `error` is about; None: it is another error."""
    innermost = error.__traceback__
    while innermost is not None and innermost.tb_next is not None:
        innermost = innermost.tb_next
    if innermost is None or innermost.tb_frame.f_code is not click.echo.__code__:
        return None
    _give_up(sys.stdout)
    return error.strerror or str(error)


def _give_up(stream: TextIO) -> None:
    """Discard what could not be written. Else the interpreter tries again at its end, and exits with 120."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def complain(sentence: str) -> None:
    """Write each line of `sentence` to standard error, in a form that is safe for a terminal."""
    for line in sentence.splitlines():
        note(f"{PROGRAM}: {printable(line)}")


def note(line: str) -> None:
    """Write a line to standard error, if that can be written."""
    try:
        click.echo(line, err=True)
    except (OSError, ValueError):
        _give_up(sys.stderr)
