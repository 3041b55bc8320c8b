"""The actions on runs. Each returns one sentence per run, which says what happened to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.urls import reverse
from django.utils.html import format_html

from reproq_prefork.errors import RunNotFound, UniqueKeyHeld
from reproq_prefork.model.limits import MAX_PRIORITY, MIN_PRIORITY
from reproq_prefork.model.run import Status
from reproq_prefork.store.task_runs import TaskRuns
from reproq_prefork.store.unique_keys import KeyChangesHands

MAX_RUNS = 1_000
MAX_SENTENCES = 20


@dataclass(frozen=True, slots=True)
class ActionResult:
    """What happened to a run. `done`: the entry in the run's history; empty if nothing was changed."""

    run_id: int
    sentence: str
    done: str = ""
    new_run_id: int | None = None

    def __str__(self) -> str:
        link = format_html("Run {}: {}", _link(self.run_id), self.sentence)
        return link if self.new_run_id is None else format_html("{} {}.", link, _link(self.new_run_id))


Act = Callable[[int], ActionResult]


def requeue(runs: TaskRuns) -> Act:
    def act(run_id: int) -> ActionResult:
        try:
            new = runs.requeue(run_id)
        except UniqueKeyHeld as held:
            return ActionResult(
                run_id, "not queued again, since its unique key is held by run", new_run_id=held.run_id
            )
        except (RunNotFound, KeyChangesHands) as error:
            return ActionResult(run_id, str(error))
        return ActionResult(run_id, "queued again as run", f"Queued again as run {new.id}.", new.id)

    return act


def cancel(runs: TaskRuns) -> Act:
    def act(run_id: int) -> ActionResult:
        try:
            was = runs.get(run_id).status
            run = runs.cancel(run_id)
        except RunNotFound as error:
            return ActionResult(run_id, str(error))
        if run.status is Status.RUNNING:
            return ActionResult(run_id, "asked to stop; its worker ends it.", "Asked to stop.")
        if run.status is Status.CANCELLED and was is not Status.CANCELLED:
            return ActionResult(run_id, "cancelled.", "Cancelled.")
        return ActionResult(run_id, f"not changed, since it has finished: {run.status.value}.")

    return act


def change_priority(queryset: Any, priority: int) -> Act:
    """`queryset`: all runs."""
    if not MIN_PRIORITY <= priority <= MAX_PRIORITY:
        raise ValueError(f"a priority is from {MIN_PRIORITY} to {MAX_PRIORITY}, not {priority}")

    def act(run_id: int) -> ActionResult:
        # One statement also checks that it is still PENDING: a worker may claim it now.
        if queryset.filter(pk=run_id, status=Status.PENDING.value).update(priority=priority):
            return ActionResult(run_id, f"priority {priority}.", f"Priority changed to {priority}.")
        return ActionResult(run_id, "priority not changed, since the run is not waiting any more.")

    return act


def carry_out(model_admin: Any, request: Any, run_ids: Iterable[int], act: Act) -> None:
    """Apply it to each run, log it in the run's history, and tell the user: in detail for the first runs."""
    results = [act(run_id) for run_id in run_ids]
    for each in results:
        if each.done:
            model_admin.log_change(request, model_admin.model(pk=each.run_id), each.done)
    for each in results[:MAX_SENTENCES]:
        level = messages.SUCCESS if each.done else messages.WARNING
        model_admin.message_user(request, str(each), level)
    rest = results[MAX_SENTENCES:]
    if rest:
        changed = sum(bool(each.done) for each in rest)
        model_admin.message_user(
            request,
            f"And {len(rest)} more: {changed} done, {len(rest) - changed} not changed.",
            messages.INFO,
        )


def _link(run_id: int) -> str:
    return format_html(
        '<a href="{}">{}</a>', reverse("admin:reproq_prefork_taskrun_change", args=[run_id]), run_id
    )
