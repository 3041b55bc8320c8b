"""`list`: the newest runs that match."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

import click

from reproq_prefork.cli.flags import CONNECTING, given_flags, setting_flags
from reproq_prefork.cli.help import HelpfulCommand, verbatim
from reproq_prefork.cli.invocation import Invocation, opened_store
from reproq_prefork.cli.printing import PROGRAM
from reproq_prefork.cli.text import DurationWithUnit, rough_duration, table
from reproq_prefork.model.run import Status
from reproq_prefork.store.listed_runs import ListedRun, Wanted
from reproq_prefork.text.printable import printable

DEFAULT_LIMIT = 20
MAX_LIMIT = 10_000
MAX_ERROR_CHARS = 80


@click.command(
    name="list",
    cls=HelpfulCommand,
    params=setting_flags(CONNECTING),
    short_help="List runs: the newest that match.",
    help="List the newest runs that match all options, the newest first: what each is, how it stands, and its "
    "last error. `show` prints everything about one of them.",
    epilog=verbatim(
        "Examples:",
        [
            f"{PROGRAM} list",
            f"{PROGRAM} list --status FAILED --since 1d --error timeout",
            f"{PROGRAM} list --status PENDING --queue mail --task 'shop.*' --older-than 2h --json",
        ],
    ),
)
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice([status.value for status in Status], case_sensitive=False),
    help="Only runs with this status; may be repeated.",
)
@click.option(
    "--queue", "queues", multiple=True, metavar="QUEUE", help="Only runs of this queue; may be repeated."
)
@click.option("--task", metavar="PATTERN", help="Only runs of tasks whose path matches, such as 'shop.*'.")
@click.option(
    "--since",
    "since_s",
    type=DurationWithUnit(),
    help="Only runs that were enqueued within this time, such as 2h.",
)
@click.option(
    "--older-than",
    "older_than_s",
    type=DurationWithUnit(),
    help="Only runs that were enqueued longer ago than this.",
)
@click.option("--error", metavar="TEXT", help="Only runs with this text in one of their errors.")
@click.option(
    "--limit",
    type=click.IntRange(1, MAX_LIMIT),
    metavar="N",
    default=DEFAULT_LIMIT,
    show_default=True,
    help="How many runs at most.",
)
@click.option("--json", "as_json", is_flag=True, help="As one JSON object per line.")
@click.pass_context
def list_runs(
    context: click.Context,
    statuses: tuple[str, ...],
    queues: tuple[str, ...],
    task: str | None,
    since_s: float | None,
    older_than_s: float | None,
    error: str | None,
    limit: int,
    as_json: bool,
) -> None:
    settings = context.ensure_object(Invocation).settings(given_flags(context))
    wanted = Wanted(
        frozenset(map(Status, statuses)), queues or None, task, since_s, older_than_s, error or None
    )
    with opened_store(settings, for_writing=False) as store:
        runs = store.list_runs(wanted, limit)
    lines = map(_as_json, runs) if as_json else _as_text(runs)
    for line in lines:
        click.echo(line)


_HEAD = ("run", "status", "queue", "task", "attempts", "enqueued", "last error")


def _as_text(runs: list[ListedRun]) -> Iterable[str]:
    if not runs:
        return ["no runs match"]
    return table([_HEAD, *map(_row, runs)])


def _row(run: ListedRun) -> tuple[str, ...]:
    return (
        str(run.id),
        run.status,
        printable(run.queue_name),
        printable(run.task_path or "-"),
        f"{run.attempts}/{run.max_attempts}",
        _ago(run.enqueued_s),
        printable(_error(run)),
    )


def _ago(seconds: float) -> str:
    return f"{rough_duration(seconds)} ago" if math.isfinite(seconds) else "-"


def _error(run: ListedRun) -> str:
    """The kind, and the first line of the message."""
    first_line = (run.error_message or "").strip().partition("\n")[0]
    text = ": ".join(part for part in (run.error_kind, first_line) if part)
    return text if len(text) <= MAX_ERROR_CHARS else f"{text[: MAX_ERROR_CHARS - 1]}…"


def _as_json(run: ListedRun) -> str:
    said: dict[str, Any] = {
        "id": run.id,
        "status": run.status,
        "queue_name": run.queue_name,
        "task_path": run.task_path,
        "priority": run.priority,
        "attempts": run.attempts,
        "max_attempts": run.max_attempts,
        **run.times,
        "unique_key": run.unique_key,
        "replay_of": run.replay_of,
        "last_error": None
        if (run.error_kind, run.error_exception, run.error_message) == (None, None, None)
        else {"kind": run.error_kind, "exception": run.error_exception, "message": run.error_message},
    }
    return json.dumps(said, ensure_ascii=True)
