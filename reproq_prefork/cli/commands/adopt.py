"""`adopt`: decide what happens to the runs in a copy of another database."""

from __future__ import annotations

import click

from reproq_prefork.cli.commands.asking import confirm
from reproq_prefork.cli.commands.cancel import echo_cancelled
from reproq_prefork.cli.flags import CONNECTING, given_flags, setting_flags
from reproq_prefork.cli.help import HelpfulCommand, verbatim
from reproq_prefork.cli.invocation import Invocation, opened_store
from reproq_prefork.cli.printing import PROGRAM, report
from reproq_prefork.cli.text import how_many
from reproq_prefork.errors import ReproqError
from reproq_prefork.store.copies import copy_of
from reproq_prefork.store.operator_store import OperatorStore
from reproq_prefork.store.unfinished_runs import Selection

CANCEL_TRIES = 5
MESSAGE = "this copy of the run's database was adopted without it"


class WorkersAreAlive(ReproqError):
    """Workers hold leases in a database that does not look like a copy."""

    def __init__(self, workers: int) -> None:
        super().__init__(
            f"This database does not look like a copy, and has {how_many(workers, 'live worker')}, so no run "
            "was cancelled. If it is a copy even so, such as a snapshot of a server, stop its masters, wait until "
            f"the leases of their workers have ended (`{PROGRAM} status`), and run this again."
        )


class RunsAreHeld(ReproqError):
    """Some of the runs could not be cancelled, so the copy was not adopted."""

    def __init__(self, left: int) -> None:
        super().__init__(
            f"{how_many(left, 'run')} could not be cancelled, since others hold them locked, so the database was "
            "not adopted. End the transactions that hold them, and run this again."
        )


@click.command(
    cls=HelpfulCommand,
    params=setting_flags(CONNECTING),
    short_help="Decide about the runs in a copied database.",
    help="A database that was made from a dump of another one, or by CREATE DATABASE with a template, has the "
    "other one's runs, and no master starts there. Decide here what happens to these runs. Then masters can "
    "start, and waiting workers continue. A physical copy, such as a snapshot of the whole server, cannot be "
    "recognised: adopt it before the first master starts there.",
    epilog=verbatim(
        "Examples:",
        [
            f"{PROGRAM} adopt --keep-unfinished     after a restore, a move, or pg_upgrade",
            f"{PROGRAM} adopt --cancel-unfinished   for staging",
        ],
    ),
)
@click.option("--keep-unfinished", "keep", is_flag=True, help="Execute the PENDING and RUNNING runs here.")
@click.option(
    "--cancel-unfinished",
    "cancel",
    is_flag=True,
    help="Cancel the PENDING and RUNNING runs. No task_finished is sent to the application for them.",
)
@click.option("--yes", is_flag=True, help="Do not ask if the database does not look like a copy.")
@click.pass_context
def adopt(context: click.Context, keep: bool, cancel: bool, yes: bool) -> None:
    settings = context.ensure_object(Invocation).settings(given_flags(context))
    if keep and cancel:
        raise click.UsageError("Give either --keep-unfinished or --cancel-unfinished.")
    with opened_store(settings) as store:
        copy = copy_of(store.connection)
        if copy is None and not cancel:
            click.echo("nothing to do: this database is not a copy")
            return
        unfinished = store.unfinished(Selection())
        matching = unfinished.count()
        if copy is not None and matching and not keep and not cancel:
            raise click.UsageError(
                f"{how_many(matching, 'run')} of {copy.original} have not finished. To execute them here, give "
                "--keep-unfinished; to cancel them, give --cancel-unfinished."
            )
        if copy is None:
            _refuse_living_workers(store)
            question = f"Cancel {how_many(matching, 'unfinished run')}?"
            confirm(f"This database does not look like a copy. {question}", yes=yes)
        if cancel:
            _cancel_all(store)
        store.adopt()
    report("adopted: masters may start here")


def _refuse_living_workers(store: OperatorStore) -> None:
    alive = [worker for worker in store.workers() if worker.lease_s is not None and worker.lease_s > 0]
    if alive:
        raise WorkersAreAlive(len(alive))


def _cancel_all(store: OperatorStore) -> None:
    """All runs, or the copy is not adopted. Runs that others hold locked are tried again."""
    unfinished = store.unfinished(Selection())
    echo_cancelled(unfinished, message=MESSAGE, end_running=True, finish_due=False)
    for _ in range(CANCEL_TRIES):
        if not unfinished.count():
            store.forget_finish_due()
            return
        for _ in unfinished.cancel(message=MESSAGE, end_running=True, finish_due=False):
            pass
    raise RunsAreHeld(unfinished.count())
