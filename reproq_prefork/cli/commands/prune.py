"""`prune`: delete runs that finished long ago."""

from __future__ import annotations

import click

from reproq_prefork.cli.flags import CONNECTING, given_flags, setting_flags
from reproq_prefork.cli.help import HelpfulCommand, verbatim
from reproq_prefork.cli.invocation import PROGRAM, Invocation, opened_store
from reproq_prefork.cli.text import Duration


@click.command(
    cls=HelpfulCommand,
    params=setting_flags(CONNECTING),
    short_help="Delete runs that finished long ago.",
    help="Delete runs that finished long ago, a thousand at a time, and print how many. An unfinished run "
    "is never deleted. Run it daily, with cron or a systemd timer.",
    epilog=verbatim("Example:", [f"{PROGRAM} prune --older-than 7d --failed-older-than 30d"]),
)
@click.option(
    "--older-than", "older_than_s", type=Duration(), required=True, help="How long ago they finished."
)
@click.option(
    "--failed-older-than",
    "failed_older_than_s",
    type=Duration(),
    show_default="as --older-than",
    help="The same for FAILED and CANCELLED runs.",
)
@click.pass_context
def prune(context: click.Context, older_than_s: float, failed_older_than_s: float | None) -> None:
    settings = context.ensure_object(Invocation).settings(given_flags(context))
    with opened_store(settings) as store:
        batches = store.prune(
            older_than_s=older_than_s,
            failed_older_than_s=older_than_s if failed_older_than_s is None else failed_older_than_s,
        )
        click.echo(f"deleted {sum(batches)} runs")
