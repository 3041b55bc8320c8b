"""Asks before an action that cannot be undone."""

from __future__ import annotations

import sys

import click

from reproq_prefork.errors import ReproqError


class NotConfirmed(ReproqError):
    """The answer was not yes."""

    def __init__(self) -> None:
        super().__init__("Nothing was changed.")


def confirm(question: str, *, yes: bool) -> None:
    """Return if `yes` is set, or if the answer is yes. Raises NotConfirmed; UsageError if nobody can answer."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Nobody can answer here: give --yes.")
    if not click.confirm(question, err=True):
        raise NotConfirmed
