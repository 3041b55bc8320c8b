"""`enqueue`: add a run."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta

import click

from reproq_prefork.cli.flags import CONNECTING, given_flags, setting_flags
from reproq_prefork.cli.help import HelpfulCommand, verbatim
from reproq_prefork.cli.invocation import Invocation, opened_store
from reproq_prefork.cli.printing import PROGRAM, note, report
from reproq_prefork.cli.text import Duration, Moment
from reproq_prefork.model.limits import MAX_ATTEMPTS, MAX_PAYLOAD_BYTES, MAX_PRIORITY, MIN_PRIORITY
from reproq_prefork.model.new_run import DEFAULT_MAX_ATTEMPTS, DEFAULT_PRIORITY, DEFAULT_QUEUE, InvalidRun
from reproq_prefork.spec import Spec, SpecError
from reproq_prefork.store import runs
from reproq_prefork.store.outcomes import translated_errors
from reproq_prefork.text.printable import quoted

# The text as it was given: spaces and escapes make it longer than the stored form.
MAX_INPUT_BYTES = 8 * MAX_PAYLOAD_BYTES


@click.command(
    cls=HelpfulCommand,
    params=setting_flags(CONNECTING),
    short_help="Add a run.",
    help="Add a run of PAYLOAD, a JSON text (`-`: read it from standard input). Print its id and its spec hash.",
    epilog=verbatim(
        "Examples:",
        [
            f"""{PROGRAM} enqueue '{{"order": 7}}' --queue mail --priority 10""",
            f"{PROGRAM} enqueue - --run-after 10m --unique nightly-report < report.json",
        ],
    ),
)
@click.argument("payload")
@click.option(
    "--queue",
    "queue_name",
    metavar="NAME",
    default=DEFAULT_QUEUE,
    show_default=True,
    help="The queue of the run.",
)
@click.option(
    "--priority",
    type=click.IntRange(MIN_PRIORITY, MAX_PRIORITY),
    metavar="N",
    default=DEFAULT_PRIORITY,
    show_default=True,
    help="Higher goes first, also across queues.",
)
@click.option(
    "--run-after", type=Moment(), help="Do not start it before this time; a duration counts from now."
)
@click.option(
    "--max-attempts",
    type=click.IntRange(1, MAX_ATTEMPTS),
    metavar="N",
    default=DEFAULT_MAX_ATTEMPTS,
    show_default=True,
    help="How many attempts it may have; 1: at most once.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=Duration(),
    show_default="the worker's --timeout",
    help="How long an attempt may take; 0: no deadline.",
)
@click.option(
    "--unique",
    "unique_key",
    metavar="KEY",
    help="If an unfinished run has this key, add nothing and print that run.",
)
@click.pass_context
def enqueue(
    context: click.Context,
    payload: str,
    queue_name: str,
    priority: int,
    run_after: datetime | timedelta | None,
    max_attempts: int,
    timeout_s: float | None,
    unique_key: str | None,
) -> None:
    settings = context.ensure_object(Invocation).settings(given_flags(context))
    text = _text(payload)
    try:
        with opened_store(settings) as store, translated_errors():
            run = runs.enqueue(
                store.connection,
                Spec.parse(text),
                queue_name=queue_name,
                priority=priority,
                run_after=run_after,
                max_attempts=max_attempts,
                timeout_seconds=timeout_s,
                unique_key=unique_key,
            )
    except SpecError as error:
        raise InvalidRun(f"The payload is not valid: {error}.") from None
    line = f"{run.id} {run.spec_hash}"
    if run.created:
        report(line, done=f"run {run.id} was added")
        return
    click.echo(line)
    note(
        f"Nothing was added: run {run.id} holds the unique key {quoted(unique_key or '')} and is "
        f"{run.status.value}."
    )


def _text(payload: str) -> str | bytes:
    text = sys.stdin.buffer.read(MAX_INPUT_BYTES + 1) if payload == "-" else payload
    if len(text) > MAX_INPUT_BYTES:
        raise InvalidRun(f"The payload is longer than {MAX_INPUT_BYTES} bytes; store it elsewhere.")
    return text
