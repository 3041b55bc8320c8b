"""`status`: what is waiting, what is running, and on which worker."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import click

from reproq_prefork.cli.commands.horizon import held_back
from reproq_prefork.cli.flags import CONNECTING, given_flags, setting_flags
from reproq_prefork.cli.help import HelpfulCommand
from reproq_prefork.cli.invocation import Invocation, opened_store
from reproq_prefork.cli.text import rough_duration, table
from reproq_prefork.model.run import Status
from reproq_prefork.store.copies import copy_of
from reproq_prefork.store.horizon import HorizonHolder, horizon_holders
from reproq_prefork.store.operator_store import (
    MAX_RUNS_COUNTED,
    Count,
    OperatorStore,
    QueueState,
    RunAtWork,
    WorkerAtWork,
)
from reproq_prefork.text.printable import printable

WATCH_INTERVAL_S = 1.0
CLEAR_SCREEN = "\x1b[H\x1b[2J"


@click.command(
    cls=HelpfulCommand,
    params=setting_flags(CONNECTING),
    short_help="Show queues and workers.",
    help="Show how many runs each queue has by status, how long the oldest due run has waited, and what "
    f"each worker does. Above {MAX_RUNS_COUNTED:,} runs, the counts of finished runs are estimated from a sample "
    "and marked `~`. What has held back vacuum for a minute or longer is named at the end.",
)
@click.option("--json", "as_json", is_flag=True, help="As one JSON object per line.")
@click.option("--watch", is_flag=True, help="Show it again each second, until Ctrl-C.")
@click.pass_context
def status(context: click.Context, as_json: bool, watch: bool) -> None:
    settings = context.ensure_object(Invocation).settings(given_flags(context))
    with opened_store(settings, for_writing=False) as store:
        while True:
            shown = _as_json(store) if as_json else "\n".join(_as_text(store))
            clear = CLEAR_SCREEN if watch and not as_json and sys.stdout.isatty() else ""
            click.echo(clear + shown)
            if not watch:
                return
            time.sleep(WATCH_INTERVAL_S)


def _as_text(store: OperatorStore) -> list[str]:
    queues, workers, copy = store.queues(), store.workers(), copy_of(store.connection)
    lines = [] if copy is None else [str(copy), ""]
    lines += table([_QUEUE_HEAD, *map(_queue_row, queues)], numbers=True) if queues else ["no runs"]
    lines.append("")
    if workers:
        lines += table([_WORKER_HEAD, *(row for worker in workers for row in _worker_rows(worker))])
    else:
        lines.append("no workers")
    holders = horizon_holders(store.connection)
    return [*lines, *([""] if holders else []), *map(held_back, holders)]


_QUEUE_HEAD = ("queue", "pending", "due", "oldest due", "running", "successful", "failed", "cancelled")
_WORKER_HEAD = ("worker", "host", "pid", "up", "lease left", "runs")


def _queue_row(queue: QueueState) -> tuple[str, ...]:
    pending = queue.count(Status.PENDING)
    return (
        printable(queue.name),
        _number(pending),
        _number(Count(pending.due, exact=pending.exact)),
        "-" if queue.oldest_due_s is None else rough_duration(queue.oldest_due_s),
        *(
            _number(queue.count(each))
            for each in (Status.RUNNING, Status.SUCCESSFUL, Status.FAILED, Status.CANCELLED)
        ),
    )


def _number(count: Count) -> str:
    return f"{'' if count.exact else '~'}{count.runs}"


def _worker_rows(worker: WorkerAtWork) -> list[tuple[str, ...]]:
    """One row for the worker with its first run, and one for each other run."""
    runs: Sequence[str] = [_run(run) for run in worker.runs] or ["-"]
    if worker.host is None or worker.up_s is None or worker.lease_s is None:
        who = ("not registered", "-", "-", "-")
    else:
        lease = "ended" if worker.lease_s < 0 else rough_duration(worker.lease_s)
        who = (printable(worker.host), str(worker.pid), rough_duration(worker.up_s), lease)
    first = (printable(worker.id), *who, runs[0])
    return [first, *(("", "", "", "", "", run) for run in runs[1:])]


def _run(run: RunAtWork) -> str:
    task = f" {printable(run.task_path)}" if run.task_path else ""
    since = "" if run.running_s is None else f" for {rough_duration(run.running_s)}"
    cancelled = ", cancelled" if run.cancel_requested else ""
    return f"{run.id}{task} ({printable(run.queue_name)}, attempt {run.attempt}{cancelled}){since}"


def _as_json(store: OperatorStore) -> str:
    copy = copy_of(store.connection)
    return json.dumps(
        {
            "copy_of": None if copy is None else copy.original,
            "queues": [_queue_object(queue) for queue in store.queues()],
            "workers": [_worker_object(worker) for worker in store.workers()],
            "holding_back_vacuum": [_holder_object(holder) for holder in horizon_holders(store.connection)],
        }
    )


def _queue_object(queue: QueueState) -> dict[str, Any]:
    return {
        "queue": queue.name,
        **{each.value.lower(): queue.count(each).runs for each in Status},
        "due": queue.count(Status.PENDING).due,
        "oldest_due_seconds": queue.oldest_due_s,
        "estimated": [each.value.lower() for each in Status if not queue.count(each).exact],
    }


def _holder_object(holder: HorizonHolder) -> dict[str, Any]:
    return {
        "kind": holder.kind,
        "pid": holder.pid,
        "name": holder.name,
        "login": holder.login,
        "database": holder.database,
        "state": holder.state,
        "held_seconds": holder.held_s,
        "transactions": holder.transactions,
    }


def _worker_object(worker: WorkerAtWork) -> dict[str, Any]:
    return {
        "worker": worker.id,
        "host": worker.host,
        "pid": worker.pid,
        "version": worker.version,
        "queues": worker.queues,
        "up_seconds": worker.up_s,
        "lease_seconds": worker.lease_s,
        "runs": [
            {
                "id": run.id,
                "queue": run.queue_name,
                "task_path": run.task_path,
                "attempt": run.attempt,
                "running_seconds": run.running_s,
                "cancel_requested": run.cancel_requested,
            }
            for run in worker.runs
        ],
    }
