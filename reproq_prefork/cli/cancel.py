"""`cancel`: end a run, and do not try it again."""

from __future__ import annotations

import click

from reproq_prefork.cli.flags import CONNECTING, given_flags, setting_flags
from reproq_prefork.cli.help import HelpfulCommand
from reproq_prefork.cli.invocation import Invocation, opened_store
from reproq_prefork.cli.text import RunId
from reproq_prefork.errors import ExitStatus, ReproqError
from reproq_prefork.printable import printable
from reproq_prefork.store import runs
from reproq_prefork.store.connection import translated_errors
from reproq_prefork.task_run import Status, TaskRun


class HasFinished(ReproqError):
    """There is nothing left to cancel."""

    exit_status = ExitStatus.CONFLICT

    def __init__(self, run_id: int, status: Status) -> None:
        super().__init__(
            f"Run {run_id} has finished already and is {status.value}: there is nothing left to cancel."
        )


@click.command(
    cls=HelpfulCommand,
    params=setting_flags(CONNECTING),
    short_help="Cancel a run.",
    help="Cancel the run with this id: it ends CANCELLED and is not tried again. One that waits does so at once; "
    "one that runs is ended by its worker, with a few seconds to clean up. To cancel it once more does no harm.",
)
@click.argument("run_id", metavar="ID", type=RunId())
@click.pass_context
def cancel(context: click.Context, run_id: int) -> None:
    settings = context.ensure_object(Invocation).settings(given_flags(context))
    with opened_store(settings) as store, translated_errors():
        run = runs.cancel(store.connection, run_id)
    click.echo(_what_happened(run))


def _what_happened(run: TaskRun) -> str:
    match run.status:
        case Status.CANCELLED:
            return f"run {run.id} is CANCELLED"
        case Status.RUNNING:
            return f"run {run.id} is RUNNING; its worker is told to end it: {printable(run.leased_by or '')}"
        case _:
            raise HasFinished(run.id, run.status)
