"""`show`: everything about one run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import click

from reproq_prefork.cli.flags import CONNECTING, given_flags, setting_flags
from reproq_prefork.cli.help import HelpfulCommand
from reproq_prefork.cli.invocation import Invocation, opened_store
from reproq_prefork.cli.text import RunId, indented, moment, show_timeout
from reproq_prefork.model.run import Status, TaskRun, omitted_entries
from reproq_prefork.spec import canonical_json
from reproq_prefork.store.json_columns import UnreadableJson, is_small_number
from reproq_prefork.store.outcomes import translated_errors
from reproq_prefork.store.runs import get_run
from reproq_prefork.text.duration import format_duration
from reproq_prefork.text.printable import printable

Replays = tuple[tuple[int, Status], ...]


@click.command(
    cls=HelpfulCommand,
    params=setting_flags(CONNECTING),
    short_help="Show everything about a run.",
    help="Show everything about the run with this id: what it is, how it went, and why its attempts failed.",
)
@click.argument("run_id", metavar="ID", type=RunId())
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@click.pass_context
def show(context: click.Context, run_id: int, as_json: bool) -> None:
    settings = context.ensure_object(Invocation).settings(given_flags(context))
    with opened_store(settings, for_writing=False) as store, translated_errors():
        run = get_run(store.connection, run_id)
        replays = store.replays_of(run.id, run.spec_hash)
    click.echo(_as_json(run, replays) if as_json else "\n".join(_lines(run, replays)))


def _lines(run: TaskRun, replays: Replays) -> Iterator[str]:
    yield f"run {run.id}: {run.status.value}, {run.attempts} of {run.max_attempts} attempts"
    for name, value in _facts(run, replays):
        if value:
            yield f"  {name:<13} {printable(value)}"
    yield from _document("payload", run.payload)
    if run.metadata is not None:
        yield from _document("metadata", run.metadata)
    if run.status is Status.SUCCESSFUL:
        yield from _document("result", run.result)
    for entry in run.errors:
        yield from _attempt(entry)
    if run.last_attempt is not None:
        yield from _attempt(_successful_attempt(run))


def _document(name: str, value: Any) -> Iterator[str]:
    yield f"  {name}"
    yield from indented(_json(value), "    ")


def _facts(run: TaskRun, replays: Replays) -> list[tuple[str, str]]:
    times = {
        "enqueued": run.enqueued_at,
        "due after": run.run_after,
        "first started": run.started_at,
        "last started": run.last_attempted_at if run.attempts > 1 else None,
        "to be ended": run.cancel_requested_at,
        "finished": run.finished_at,
        "lease ends": run.lease_expires_at,
    }
    return [
        ("task", run.task_path or ""),
        ("queue", f"{run.queue_name}, priority {run.priority}"),
        ("timeout", show_timeout(run.timeout_seconds)),
        ("retry wait", _retry_wait(run)),
        ("executor", run.executor or ""),
        ("atomic", "yes: its effects and its end are one transaction" if run.atomic else ""),
        ("spec hash", run.spec_hash),
        ("unique key", run.unique_key or ""),
        *((name, moment(at)) for name, at in times.items() if at is not None),
        ("claimed", _claimed(run)),
        ("held by", run.leased_by or ""),
        ("attempted by", ", ".join(run.worker_ids)),
        ("re-run of", "" if run.replay_of is None else str(run.replay_of)),
        ("re-run as", ", ".join(f"{run_id} ({status.value})" for run_id, status in replays)),
    ]


def _claimed(run: TaskRun) -> str:
    """Only if it says more than the attempts: the run was snoozed, or handed back."""
    return f"{run.claims} times" if run.claims > max(1, run.attempts) else ""


def _retry_wait(run: TaskRun) -> str:
    """What the run itself sets. The rest is set by the worker."""
    base = None if run.retry_base_seconds is None else f"up to {format_duration(run.retry_base_seconds)}"
    most = None if run.retry_max_seconds is None else f"at most {format_duration(run.retry_max_seconds)}"
    return ", ".join(
        part for part in (base and f"{base} after the first attempt, then doubled", most) if part
    )


# The parts of an entry in its first lines, and the order of the rest. (jsonb sorts keys by length.)
_HEAD = ("attempt", "kind", "worker", "started_at", "ended_at", "exit", "cpu_seconds", "peak_rss_kib")
_ORDER = ("exception", "message", "traceback", "stderr", "output")


def _successful_attempt(run: TaskRun) -> Any:
    """In the form of an entry of `errors`."""
    if not isinstance(run.last_attempt, Mapping):
        return run.last_attempt
    return {
        "attempt": run.attempts,
        "kind": "succeeded",
        "worker": run.worker_ids[-1] if run.worker_ids else None,
        "started_at": run.last_attempted_at and run.last_attempted_at.isoformat(),
        "ended_at": run.finished_at and run.finished_at.isoformat(),
        **run.last_attempt,
    }


def _attempt(entry: Any) -> Iterator[str]:
    """An entry of `errors`. An entry without an attempt is a cancel while no attempt was running."""
    if not isinstance(entry, Mapping):
        yield from _document("error", entry)
        return
    omitted = omitted_entries(entry)
    if omitted is not None:
        yield f"  ... {omitted:,} more, which were not kept"
        return
    kind = entry.get("kind", "failed")
    head = f"attempt {entry['attempt']}: {kind}" if "attempt" in entry else str(kind)
    times = " to ".join(str(entry[name]) for name in ("started_at", "ended_at") if entry.get(name))
    yield "  " + printable(head + (f", {times}" if times else ""))
    if entry.get("worker"):
        yield "    " + printable(f"worker {entry['worker']}")
    usage = _usage(entry)
    if usage:
        yield "    " + printable(usage)
    for name in (*_ORDER, *sorted(entry.keys() - {*_HEAD, *_ORDER})):
        value = entry.get(name)
        if value is None:
            continue
        text = value if isinstance(value, str) else _json(value)
        if "\n" in text.strip():
            yield f"    {printable(name)}:"
            yield from indented(text, "      | ")
        else:
            yield from indented(f"{name}: {text.strip()}", "    ")


def _usage(entry: Mapping[str, Any]) -> str:
    """How the attempt ended and what it used, as far as the entry has it."""
    cpu_s, peak_kib = entry.get("cpu_seconds"), entry.get("peak_rss_kib")
    parts = (
        entry.get("exit"),
        None if cpu_s is None else f"{cpu_s} s of CPU time",
        f"{peak_kib / 1024:,.1f} MiB at most" if is_small_number(peak_kib) else peak_kib,
    )
    return ", ".join(str(part) for part in parts if part is not None)


def _as_json(run: TaskRun, replays: Replays) -> str:
    values: dict[str, Any] = {
        field.name: getattr(run, field.name) for field in dataclasses.fields(run) if field.name != "created"
    }
    values["replays"] = [{"id": run_id, "status": status} for run_id, status in replays]
    members = ",\n  ".join(f"{_json(name)}: {_json(value)}" for name, value in values.items())
    return f"{{\n  {members}\n}}"


def _json(value: Any) -> str:
    """JSON that keeps every number as it is stored."""
    match value:
        case UnreadableJson():
            return value.text
        case datetime():
            return f'"{value.isoformat()}"'
        case float() if not math.isfinite(value):
            return f'"{value}"'
        case _:
            return canonical_json(value)
