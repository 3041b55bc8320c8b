"""`check`: would a master start here? A reload checks the same first."""

from __future__ import annotations

from contextlib import closing

import click

from reproq_prefork.boot.application import Application, load_application
from reproq_prefork.boot.program_check import check_program
from reproq_prefork.cli.commands.horizon import held_back
from reproq_prefork.cli.flags import ALL, given_flags, setting_flags
from reproq_prefork.cli.help import HelpfulCommand
from reproq_prefork.cli.invocation import Invocation
from reproq_prefork.errors import DatabaseIsCopy, ExitStatus, ReproqError, SchemaMismatch
from reproq_prefork.settings import Settings
from reproq_prefork.store.horizon import horizon_holders
from reproq_prefork.store.migrate import check_database
from reproq_prefork.store.operator_store import OperatorStore
from reproq_prefork.text.printable import printable


@click.command(
    cls=HelpfulCommand,
    params=setting_flags(ALL),
    short_help="Check whether a master could start.",
    help="Check the settings, the executor, the database and its schema, and print a line for each: ok, or "
    "what is wrong. The exit status is 0, or that of the first problem. Nothing is changed. An old "
    "snapshot, which makes the queue slower, is a warning.",
)
@click.pass_context
def check(context: click.Context) -> int:
    flags = given_flags(context)
    try:
        settings = context.ensure_object(Invocation).settings(flags)
    except ReproqError as error:
        _say("settings", error)
        return error.exit_status
    _say("settings", None)
    settings, application, wrong = _executor(settings)
    found = [wrong, *_database(settings, application)]
    return next((error.exit_status for error in found if error is not None), ExitStatus.OK)


def _executor(settings: Settings) -> tuple[Settings, Application, ReproqError | None]:
    """The settings with those of the application, the application, and what is wrong."""
    wrong = None
    application = Application()
    try:
        check_program(settings)
        application = load_application(settings)
        settings = application.complete(settings)
    except ReproqError as error:
        wrong = error
    _say("executor", wrong)
    return settings, application, wrong


def _database(settings: Settings, application: Application) -> tuple[ReproqError | None, ...]:
    try:
        check_database(settings)
    except SchemaMismatch as error:
        _say("database", None)
        _say("schema", error)
        return None, error
    except DatabaseIsCopy as error:
        _say("database", error)
        _say("schema", None)
        return (error,)
    except ReproqError as error:
        _say("database", error)
        return (error,)
    _say("database", None)
    _say("schema", None)
    try:
        located = application.located(settings)
    except ReproqError as error:
        _say("backends", error)
        return (error,)
    if located is not settings:
        _say("backends", None)
    _snapshots(settings)
    return ()


def _snapshots(settings: Settings) -> None:
    """An old snapshot makes every claim slow. It does not stop a master from starting, so it is only a warning."""
    with closing(OperatorStore(settings.require_database_url())) as store:
        holders = horizon_holders(store.connection)
    for holder in holders:
        click.echo(f"{'snapshots':<9} warning: {held_back(holder)}")


def _say(what: str, wrong: ReproqError | None) -> None:
    verdict = "ok" if wrong is None else " ".join(printable(line) for line in str(wrong).splitlines())
    click.echo(f"{what:<9} {verdict}")
