"""`prune`: delete runs that finished long ago."""

from __future__ import annotations

import click

from reproq_prefork.cli.flags import CONNECTING, given_flags, setting_flags
from reproq_prefork.cli.help import HelpfulCommand, verbatim
from reproq_prefork.cli.invocation import Invocation, opened_store
from reproq_prefork.cli.printing import PROGRAM, report
from reproq_prefork.cli.progress import Progress
from reproq_prefork.cli.text import DurationWithUnit, how_many


@click.command(
    cls=HelpfulCommand,
    params=setting_flags(CONNECTING),
    short_help="Delete runs that finished long ago.",
    help="Delete runs that finished long ago, a thousand at a time, and print how many. An unfinished run "
    "is never deleted. Run it daily, with cron or a systemd timer. If it takes long, standard error says how far "
    "it has come. If it is interrupted, run it again: it continues with the rest.",
    epilog=verbatim(
        "Examples:",
        [
            f"{PROGRAM} prune --older-than 7d --failed-older-than 30d --dry-run",
            f"{PROGRAM} prune --older-than 7d --failed-older-than 30d",
        ],
    ),
)
@click.option(
    "--older-than",
    "older_than_s",
    type=DurationWithUnit(),
    required=True,
    help="How long ago they finished, with a unit, such as 7d.",
)
@click.option(
    "--failed-older-than",
    "failed_older_than_s",
    type=DurationWithUnit(),
    show_default="as --older-than",
    help="The same for FAILED and CANCELLED runs.",
)
@click.option("--dry-run", is_flag=True, help="Print how many runs would be deleted; change nothing.")
@click.pass_context
def prune(
    context: click.Context, older_than_s: float, failed_older_than_s: float | None, dry_run: bool
) -> None:
    settings = context.ensure_object(Invocation).settings(given_flags(context))
    ages = {
        "older_than_s": older_than_s,
        "failed_older_than_s": older_than_s if failed_older_than_s is None else failed_older_than_s,
    }
    with opened_store(settings, for_writing=not dry_run) as store:
        if dry_run:
            click.echo(f"would delete {how_many(sum(store.count_prunable(**ages)), 'run')}")
            return
        progress, deleted = Progress("deleted"), 0
        try:
            for batch in store.prune(**ages):
                deleted += batch
                progress.show(deleted)
        finally:
            # Also after an interruption: each batch is committed.
            report(f"deleted {how_many(deleted, 'run')}")
