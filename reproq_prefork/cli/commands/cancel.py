"""`cancel`: end one run, or all runs that match, without a retry."""

from __future__ import annotations

from typing import Any

import click

from reproq_prefork.cli.commands.asking import confirm
from reproq_prefork.cli.flags import CONNECTING, given_flags, setting_flags
from reproq_prefork.cli.help import HelpfulCommand, verbatim
from reproq_prefork.cli.invocation import Invocation, opened_store
from reproq_prefork.cli.printing import PROGRAM, report
from reproq_prefork.cli.progress import Progress
from reproq_prefork.cli.text import DurationWithUnit, RunId, how_many
from reproq_prefork.errors import ExitStatus, ReproqError
from reproq_prefork.model.run import Status, TaskRun
from reproq_prefork.settings import Settings
from reproq_prefork.store import runs
from reproq_prefork.store.outcomes import translated_errors
from reproq_prefork.store.unfinished_runs import Selection, UnfinishedRuns
from reproq_prefork.text.printable import printable


class HasFinished(ReproqError):
    """The run has finished, so it cannot be cancelled."""

    exit_status = ExitStatus.CONFLICT

    def __init__(self, run_id: int, status: Status) -> None:
        super().__init__(
            f"Run {run_id} has already finished and is {status.value}: there is nothing to cancel."
        )


@click.command(
    cls=HelpfulCommand,
    params=setting_flags(CONNECTING),
    short_help="Cancel a run, or many.",
    help="Cancel the run with this id: it ends CANCELLED and is not tried again. A waiting run ends at once. "
    "A running one is ended by its worker, and gets a few seconds to clean up. To cancel it again does no harm."
    "\n\n"
    "Without an id, cancel all runs of a status, or those of them that match all the other options. A thousand "
    "runs are cancelled at a time, so workers go on meanwhile. If it is interrupted, run it again: it continues "
    "with the rest.",
    epilog=verbatim(
        "Examples:",
        [
            f"{PROGRAM} cancel 1842",
            f"{PROGRAM} cancel --status PENDING --queue mail --older-than 2h --dry-run",
            f"{PROGRAM} cancel --status PENDING --status RUNNING --task 'shop.*' --yes",
        ],
    ),
)
@click.argument("run_id", metavar="[ID]", required=False, type=RunId())
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice([Status.PENDING.value, Status.RUNNING.value]),
    help="Cancel all runs with this status; may be given twice.",
)
@click.option(
    "--queue", "queues", multiple=True, metavar="QUEUE", help="Only runs of this queue; may be repeated."
)
@click.option("--task", metavar="PATTERN", help="Only runs of tasks whose path matches, such as 'shop.*'.")
@click.option(
    "--older-than",
    "older_than_s",
    type=DurationWithUnit(),
    help="Only runs that were enqueued longer ago than this.",
)
@click.option("--dry-run", is_flag=True, help="Print how many runs would be cancelled; change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask before many runs are cancelled.")
@click.pass_context
def cancel(
    context: click.Context,
    run_id: int | None,
    statuses: tuple[str, ...],
    queues: tuple[str, ...],
    task: str | None,
    older_than_s: float | None,
    dry_run: bool,
    yes: bool,
) -> None:
    settings = context.ensure_object(Invocation).settings(given_flags(context))
    if run_id is None and not statuses:
        raise click.UsageError(
            "Which run? Give an id; or, for many, --status PENDING, --status RUNNING or both."
        )
    if run_id is None:
        selection = Selection(frozenset(map(Status, statuses)), queues or None, task, older_than_s)
        _cancel_many(settings, selection, dry_run=dry_run, yes=yes)
        return
    if statuses or queues or task is not None or older_than_s is not None or dry_run:
        raise click.UsageError("An id cannot be used with the other options: they select many runs.")
    with opened_store(settings) as store, translated_errors():
        run = runs.cancel(store.connection, run_id)
    report(_what_happened(run))


def _what_happened(run: TaskRun) -> str:
    match run.status:
        case Status.CANCELLED:
            return f"run {run.id} is CANCELLED"
        case Status.RUNNING:
            return (
                f"run {run.id} is RUNNING; its worker was asked to end it: {printable(run.leased_by or '')}"
            )
        case _:
            raise HasFinished(run.id, run.status)


def _cancel_many(settings: Settings, selection: Selection, *, dry_run: bool, yes: bool) -> None:
    with opened_store(settings) as store:
        unfinished = store.unfinished(selection)
        if dry_run or not yes:
            matching = unfinished.count()
            if dry_run:
                click.echo(f"would cancel {how_many(matching, 'run')}")
                return
            if matching:
                confirm(f"Cancel {how_many(matching, 'run')}?", yes=False)
        echo_cancelled(unfinished)


def echo_cancelled(unfinished: UnfinishedRuns, **how: Any) -> None:
    """Cancel them, as `UnfinishedRuns.cancel` does, and print how many, also after an interruption."""
    cancelled = asked = passed_by = 0
    progress = Progress("cancelled")
    try:
        for batch in unfinished.cancel(**how):
            cancelled += batch.cancelled
            asked += batch.asked
            passed_by += batch.passed_by
            progress.show(cancelled)
    finally:
        report(f"cancelled {how_many(cancelled, 'run')}")
        if asked:
            report(f"asked the workers of {how_many(asked, 'run')} to end them")
        if passed_by:
            report(f"skipped {how_many(passed_by, 'run')} that others held or had started meanwhile")
