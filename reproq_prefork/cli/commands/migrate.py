"""`migrate`: create the schema, upgrade it, or take it back."""

from __future__ import annotations

from collections.abc import Sequence

import click

from reproq_prefork.cli.commands.asking import confirm
from reproq_prefork.cli.flags import CONNECTING, given_flags, setting_flags
from reproq_prefork.cli.help import HelpfulCommand, verbatim
from reproq_prefork.cli.invocation import Invocation
from reproq_prefork.cli.printing import PROGRAM, note, report
from reproq_prefork.cli.text import moment, table
from reproq_prefork.store import migrate as migrations
from reproq_prefork.store.migration_files import Migration, known_migrations
from reproq_prefork.store.migration_plan import Direction, MigrationState, Step

_DONE = {Direction.UP: "applied", Direction.DOWN: "taken back"}


@click.command(
    cls=HelpfulCommand,
    params=setting_flags(CONNECTING),
    short_help="Create or upgrade the schema.",
    help="Create the schema, or bring it to the version that this release needs. Steps that are already done are "
    "left out. Several processes may migrate at the same time. `cat migrations/*.up.sql | psql` does the same."
    "\n\n"
    "Before --to drops tables or columns, it asks. Without a terminal it needs --yes: else it changes nothing, "
    "and the exit status is 2. If the answer is no, the exit status is 1.",
    epilog=verbatim(
        "Examples:",
        [
            f"{PROGRAM} migrate --dry-run     print the steps, change nothing",
            f"{PROGRAM} migrate --to 1        back to version 1",
            f"{PROGRAM} migrate --to 0        remove the whole schema, with all runs in it",
            f"{PROGRAM} migrate --to 0 --yes  the same, without a question",
        ],
    ),
)
@click.option("--to", "target", type=click.IntRange(min=0), metavar="N", help="Go up or down to version N.")
@click.option("--dry-run", is_flag=True, help="Print what would be done; change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask before data is dropped.")
@click.option("--status", is_flag=True, help="Print each migration, and when it was applied.")
@click.pass_context
def migrate(context: click.Context, target: int | None, dry_run: bool, yes: bool, status: bool) -> None:
    if status and (dry_run or yes or target is not None):
        raise click.UsageError("--status cannot be used with other options of migrate.")
    database_url = context.ensure_object(Invocation).settings(given_flags(context)).require_database_url()
    known = known_migrations()
    if status:
        states = migrations.migration_states(database_url, known)
        for line in table([_row(state) for state in states]):
            click.echo(line)
        return
    if dry_run:
        steps = migrations.pending_steps(database_url, known, to=target)
        for step in steps:
            click.echo(f"would {step.direction.value} {step.migration.label}")
    else:
        if target is not None and not yes:
            _confirm(migrations.pending_steps(database_url, known, to=target), target)
        steps = migrations.migrate(database_url, known, to=target, report=_report, remark=_remark)
    if not steps:
        click.echo(f"nothing to do: the schema has version {_version(database_url, known)}")


def _confirm(steps: Sequence[Step], target: int) -> None:
    """Ask if one of these steps drops data. Raises as `confirm` does."""
    dropping = [
        step.migration.label
        for step in steps
        if step.direction is Direction.DOWN and step.migration.drops_data
    ]
    if not dropping:
        return
    what = (
        "This removes the whole schema, with all runs in it."
        if target == 0
        else f"This takes back {', '.join(dropping)}, and drops what their tables and columns hold."
    )
    confirm(f"{what} Go on?", yes=False)


def _version(database_url: str, known: Sequence[Migration]) -> int:
    """The version of the schema, which may be newer than this release."""
    states = migrations.migration_states(database_url, known)
    return max((state.version for state in states if state.applied_at is not None), default=0)


def _report(step: Step) -> None:
    report(f"{_DONE[step.direction]} {step.migration.label}")


def _remark(text: str) -> None:
    note(f"note: {text}")


def _row(state: MigrationState) -> tuple[str, str, str]:
    when = "not applied" if state.applied_at is None else f"applied {moment(state.applied_at)}"
    remark = ""
    if state.changed:
        remark = "its file has changed since"
    elif not state.known:
        remark = "of a newer release"
    return f"{state.version:04}_{state.name}", when, remark
