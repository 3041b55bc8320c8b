"""`config`: the value of each setting, and where it is set."""

from __future__ import annotations

import json

import click

from reproq_prefork.cli.flags import ALL, given_flags, setting_flags
from reproq_prefork.cli.help import HelpfulCommand
from reproq_prefork.cli.invocation import Invocation
from reproq_prefork.cli.printing import complain
from reproq_prefork.cli.text import table
from reproq_prefork.settings.django_project import with_project
from reproq_prefork.settings.options import OPTIONS
from reproq_prefork.settings.resolve import describe


@click.command(
    cls=HelpfulCommand,
    params=setting_flags(ALL),
    short_help="Print each setting and where it is set.",
    help="Print each setting, its value, and where it is set; passwords are masked. Give the flags that the "
    "master would get, in the directory and with the environment that it would have.",
)
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@click.pass_context
def config(context: click.Context, as_json: bool) -> None:
    resolved = with_project(context.ensure_object(Invocation).resolve(given_flags(context)))
    flag_of = {option.name: option.long_flag.removeprefix("--") for option in OPTIONS}
    lines = describe(resolved)
    if as_json:
        values = {flag_of[line.option]: {"value": line.value, "source": line.source} for line in lines}
        click.echo(json.dumps(values, indent=2))
    else:
        for row in table([(flag_of[line.option], line.value or "-", line.source) for line in lines]):
            click.echo(row)
    for warning in resolved.warnings:
        complain(f"warning: {warning}")
