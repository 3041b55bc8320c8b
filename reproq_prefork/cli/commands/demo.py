"""`demo`: see how everything works, without any setup."""

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
    help="Watch 200 tasks, a killed worker and two replays, on a private PostgreSQL that is deleted "
    "afterwards. It needs the extra `embedded`, but no database and no settings: it does not read yours.",
)
@click.pass_context
def demo(context: click.Context) -> None:
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]  # libpq would use these for what the private server's URL does not say
    environ = context.ensure_object(Invocation).environ
    run_demo(Screen(sys.stdout, environ), environ)
