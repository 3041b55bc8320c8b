"""`demo`: see it all work, with nothing set up."""

from __future__ import annotations

import os
import sys

import click

from reproq_prefork.cli.help import HelpfulCommand
from reproq_prefork.cli.invocation import Invocation
from reproq_prefork.demo import Screen, run_demo


@click.command(
    cls=HelpfulCommand,
    short_help="Watch it work, on a private PostgreSQL.",
    help="Watch 200 tasks, a killed worker and two replays, on a private PostgreSQL that is thrown away "
    "afterwards. It needs the extra `embedded`, no database and no settings; yours are not looked at.",
)
@click.pass_context
def demo(context: click.Context) -> None:
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]  # libpq would take what the private server's URL does not say from these
    environ = context.ensure_object(Invocation).environ
    run_demo(Screen(sys.stdout, environ), environ)
