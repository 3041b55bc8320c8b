"""From a check of the settings to a generation that uses them: at the start and at every SIGHUP."""

from __future__ import annotations

from reproq_prefork.fleet.actions import AdoptSettings, NotifySystemd, StartCheck
from reproq_prefork.fleet.draft import Draft
from reproq_prefork.fleet.events import CheckFailed, CheckPassed
from reproq_prefork.fleet.state import FleetTemplate, Generation, Phase, Reload
from reproq_prefork.text.log import LogLevel


def reload(draft: Draft) -> None:
    if draft.fleet.phase is not Phase.RUNNING:
        return
    if draft.fleet.checking or draft.fleet.reload is not Reload.NONE:
        draft.set(reload_again=True)
        draft.log("the settings are already being read; they will be read again after that")
        return
    draft.set(reload=Reload.CHECKING)
    draft.actions.append(NotifySystemd("RELOADING=1"))
    draft.log("reloading: checking the settings first")
    start_check(draft)


def start_check(draft: Draft) -> None:
    draft.set(checking=True)
    draft.actions.append(StartCheck())


def check_ended(draft: Draft, event: CheckPassed | CheckFailed) -> None:
    if not draft.fleet.checking:
        return  # the check was abandoned
    draft.set(checking=False)
    is_reload = draft.fleet.reload is Reload.CHECKING
    if isinstance(event, CheckFailed):
        if is_reload:
            end_reload(draft, f"reload refused, nothing has changed: {event.problem}", LogLevel.ERROR)
        else:
            first_check_failed(draft, event)
        return
    refusal = no_room_for(draft, event.limits.workers) if is_reload else None
    if refusal is not None:
        end_reload(draft, f"reload refused, nothing has changed: {refusal}", LogLevel.ERROR)
        return
    number = next_number(draft)
    limits = event.limits
    generation = Generation(
        number,
        limits,
        target=min(limits.workers, draft.fleet.max_slots),
        credited_at=draft.now,
        template=FleetTemplate() if limits.has_template else None,
    )
    draft.set(
        generations_made=number,
        generations={**draft.fleet.generations, number: generation},
        reload=Reload.STARTING if is_reload else Reload.NONE,
    )
    draft.actions.append(AdoptSettings(number))
    if not is_reload and draft.fleet.reload_again:
        draft.set(reload_again=False)
        reload(draft)


def first_check_failed(draft: Draft, event: CheckFailed) -> None:
    draft.log(event.problem, LogLevel.ERROR)
    if draft.fleet.reload_again:
        draft.set(reload_again=False)
        start_check(draft)
    else:
        draft.set(exit_status=event.exit_status)
        draft.advance(Phase.STOPPING, "the settings do not work")


def no_room_for(draft: Draft, workers: int) -> str | None:
    fleet = draft.fleet
    most = fleet.max_slots // 2  # otherwise the reload after this one would find no free slots
    if workers > most:
        return f"{workers} workers are too many for this master, which has room for {most}; restart it"
    # A worker that has just ended will be replaced, unless its generation drains.
    taken = sum(
        max(len(fleet.workers_of(number)), 0 if generation.draining else generation.target)
        for number, generation in fleet.generations.items()
    )
    if workers > fleet.max_slots - taken or len(fleet.generations) >= fleet.max_generations:
        return "too many workers of earlier generations still drain; send SIGHUP again once they are done"
    return None


def next_number(draft: Draft) -> int:
    """The next number whose place on the scoreboard is free.

    The places are a ring, by number. A generation that still drains keeps its place.
    """
    ring = draft.fleet.max_generations
    taken = {number % ring for number in draft.fleet.generations}
    number = draft.fleet.generations_made + 1
    while number % ring in taken:
        number += 1
    return number


def end_reload(draft: Draft, message: str, level: LogLevel = LogLevel.INFO) -> None:
    draft.log(message, level)
    again = draft.fleet.reload_again
    draft.set(reload=Reload.NONE, reload_again=False)
    draft.actions.append(NotifySystemd("READY=1"))
    if again:
        reload(draft)


def is_starting(draft: Draft, number: int) -> bool:
    """Whether this is the generation that a reload has started and that is not ready yet."""
    return draft.fleet.reload is Reload.STARTING and number == draft.fleet.generations_made
