"""`reproq-prefork` without a command: starts the master, or adds a copy of a run."""

from __future__ import annotations

import difflib
from importlib import import_module

import click

from reproq_prefork import __version__
from reproq_prefork.cli.flags import ALL, CONNECTING, given_flags, setting_flags
from reproq_prefork.cli.help import HelpfulGroup, exit_statuses, verbatim
from reproq_prefork.cli.invocation import Invocation, opened_store
from reproq_prefork.cli.printing import PROGRAM, report
from reproq_prefork.cli.text import RunId
from reproq_prefork.errors import ExitStatus
from reproq_prefork.settings import Settings
from reproq_prefork.settings.sources import FlagValue
from reproq_prefork.text.log import Log
from reproq_prefork.text.printable import quoted

HELP = """Run tasks from PostgreSQL: one master, N forked workers, one table.

Without a command, this is the master. It takes due runs from the queues, gives each to the executor, and goes on
until you stop it (SIGTERM or Ctrl-C: running tasks may finish first). You can give each setting as a flag, a
variable, a line of .env or a key of reproq.toml. The first of these wins; `config` shows which one it is.
"""
EPILOG = "\n\n".join(
    [
        verbatim(
            "Examples:",
            [
                "export DATABASE_URL=postgresql://app@localhost/app",
                f"{PROGRAM} migrate",
                f"{PROGRAM} --workers 8 --executor-module myapp.executor",
                f"{PROGRAM} --queue mail,reports --command './run-task.sh --fast' --drain",
                f"""{PROGRAM} enqueue '{{"order": 7}}' --queue mail --run-after 10m""",
                f"{PROGRAM} status --watch",
                f"{PROGRAM} list --status FAILED --since 1d",
                f"{PROGRAM} cancel 1842",
                f"{PROGRAM} --requeue-id 1842",
            ],
        ),
        verbatim(
            "Signals of the master:",
            [
                "TERM, INT    finish running tasks, take no more; INT twice: stop now",
                "QUIT         stop now; running tasks are handed back",
                "HUP          check the settings and the code, then use them, without a pause",
                "TTIN, TTOU   one more worker, one fewer",
                "USR1         log what each worker does",
                "USR2         take no more runs; again: continue",
            ],
        ),
        exit_statuses(list(ExitStatus)),
    ]
)


# In the order of the help. Each is a module of the same name in `commands`, except one that would hide a built-in.
COMMANDS = (
    "migrate",
    "enqueue",
    "cancel",
    "status",
    "list",
    "show",
    "prune",
    "adopt",
    "config",
    "check",
    "demo",
)


MODULES = {"list": "list_runs"}
# Words of other programs for what ours calls otherwise.
OF_THE_MASTER = frozenset(
    (
        "worker",
        "workers",
        "run",
        "runworker",
        "start",
        "serve",
        "server",
        "master",
        "supervisor",
        "work",
        "up",
        "daemon",
    )
)
OF_A_REPLAY = frozenset(("requeue", "retry", "replay", "rerun", "repeat"))
SYNONYMS = {
    "add": "enqueue",
    "push": "enqueue",
    "send": "enqueue",
    "submit": "enqueue",
    "abort": "cancel",
    "kill": "cancel",
    "revoke": "cancel",
    "info": "status",
    "stats": "status",
    "top": "status",
    "monitor": "status",
    "queues": "status",
    "ls": "list",
    "runs": "list",
    "tasks": "list",
    "jobs": "list",
    "inspect": "show",
    "get": "show",
    "delete": "prune",
    "clean": "prune",
    "cleanup": "prune",
    "purge": "prune",
    "settings": "config",
    "doctor": "check",
    "health": "check",
    "init": "migrate",
    "setup": "migrate",
    "schema": "migrate",
    "upgrade": "migrate",
}


class Commands(HelpfulGroup):
    """Imports a command only when it is called: most need little of what the master needs, and finish fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"No such command {quoted(name)}. {_meant(name)}")
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        name = MODULES.get(cmd_name, cmd_name)
        command: click.Command = getattr(import_module(f"reproq_prefork.cli.commands.{name}"), name)
        return command


def _print_versions(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        from reproq_prefork.cli.versions import versions

        click.echo("\n".join(versions()))
        context.exit()


def _meant(name: str) -> str:
    """What somebody who types this word probably wants."""
    word = name.lower()
    if word in OF_THE_MASTER:
        return f"The master and its workers start without a command: `{PROGRAM} --workers 4`."
    if word in OF_A_REPLAY:
        return f"To run a run again: `{PROGRAM} --requeue-id ID`."
    if word in SYNONYMS:
        return f"Did you mean {SYNONYMS[word]}?"
    close = difflib.get_close_matches(word, COMMANDS, n=2)
    if not close:
        close = [SYNONYMS[each] for each in difflib.get_close_matches(word, SYNONYMS, n=1)]
    return f"Did you mean {' or '.join(close)}?" if close else f"There are {', '.join(COMMANDS)}."


@click.group(
    cls=Commands,
    invoke_without_command=True,
    params=setting_flags(ALL),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    help=HELP,
    epilog=EPILOG,
)
@click.option(
    "--requeue-id", type=RunId(), help="Add a copy of this run, print the id of the copy, and exit."
)
@click.option("--requeue-hash", metavar="HASH", help="The same for the newest run with this spec hash.")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_versions,
    help="Print all versions that a bug report needs, and exit.",
)
@click.version_option(
    __version__,
    "-V",
    prog_name=PROGRAM,
    message="%(prog)s %(version)s",
    help="Print our own version, and exit.",
)
@click.pass_context
def program(context: click.Context, requeue_id: int | None, requeue_hash: str | None) -> int | None:
    if requeue_id is not None or requeue_hash is not None:
        return _requeue(context, requeue_id, requeue_hash)
    if context.invoked_subcommand is not None:
        return None
    return _supervise(context.ensure_object(Invocation), given_flags(context))


def _supervise(invocation: Invocation, flags: dict[str, FlagValue]) -> int:
    from reproq_prefork.boot.launch import run_master
    from reproq_prefork.store.migrate import check_database

    def read_settings() -> Settings:
        # In a child, at the start and at each reload: so each warning is logged once.
        resolved = invocation.resolve(flags)
        log = Log(resolved.settings.log_level, resolved.settings.log_format)
        for warning in resolved.warnings:
            log.warning(warning)
        return resolved.settings

    settings = invocation.resolve(flags).settings
    if settings.django_settings is None:
        settings.require_database_url()  # a Django project names one, and only the check reads it
    settings.require_executor()
    return run_master(
        settings,
        read_settings=read_settings,
        check_database=check_database,
        environ=invocation.environ,
    )


def _requeue(context: click.Context, run_id: int | None, spec_hash: str | None) -> int:
    from reproq_prefork.store.outcomes import translated_errors
    from reproq_prefork.store.runs import requeue

    if context.invoked_subcommand is not None:
        raise click.UsageError(
            f"--requeue-id and --requeue-hash do not go with `{context.invoked_subcommand}`."
        )
    if run_id is not None and spec_hash is not None:
        raise click.UsageError("Give either --requeue-id or --requeue-hash.")
    flags = given_flags(context)
    unused = flags.keys() - set(CONNECTING)
    if unused:
        raise click.UsageError(
            "--requeue-id and --requeue-hash start no master: leave out the master's flags."
        )
    settings = context.ensure_object(Invocation).settings(flags)
    with opened_store(settings) as store, translated_errors():
        run = requeue(store.connection, run_id=run_id, spec_hash=spec_hash)
    report(str(run.id), done=f"run {run.id} was added")
    return ExitStatus.OK
