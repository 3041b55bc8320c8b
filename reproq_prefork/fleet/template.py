"""The template of a generation: when there is one, when it is late, and what its end means.

If an application does not survive a fork, its generation has no template (`Generation.template` is None). Then the
master forks the workers itself, and each imports the application.
"""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import Any

from reproq_prefork.fleet.actions import Fork, SendSignal
from reproq_prefork.fleet.boots import BOOT_BACKOFF_MAX_S, boot_failed
from reproq_prefork.fleet.draft import Draft
from reproq_prefork.fleet.state import FleetTemplate, Role
from reproq_prefork.text.log import LogLevel

ANSWER_TIMEOUT_S = 10.0  # between a request, or the last answer, and the next answer


def keep(draft: Draft, number: int) -> None:
    """Make sure that there is a template, as soon as a fork is allowed."""
    generation = draft.fleet.generations[number]
    template = generation.template
    if template is None or template.pid or template.being_forked or draft.now < generation.fork_at:
        return
    _set(draft, number, being_forked=True)
    draft.actions.append(Fork(Role.TEMPLATE, number))


def forked(draft: Draft, number: int, pid: int) -> None:
    draft.set_generation(number, template=FleetTemplate(pid=pid, forked_at=draft.now))


def not_forked(draft: Draft, number: int, again_at: float) -> None:
    draft.set_generation(number, template=FleetTemplate())
    draft.postpone_forks(number, again_at)


def loaded(draft: Draft, number: int) -> None:
    _set(draft, number, ready=True, answered_at=draft.now)


def answered(draft: Draft, number: int) -> None:
    """Note that the template has answered a request for a worker."""
    if draft.fleet.generations[number].template is not None:
        _set(draft, number, answered_at=draft.now)


def unfit(draft: Draft, number: int, reason: str) -> None:
    draft.log(f"each worker imports the application for itself: {reason}", LogLevel.WARNING)
    _set(draft, number, unfit=True)
    end(draft, number)


def exited(draft: Draft, number: int, how: str) -> None:
    template = draft.fleet.generations[number].template
    assert template is not None
    for worker in draft.fleet.workers_of(number):
        if not worker.pid:
            draft.remove_worker(worker.slot)  # all workers that it forked are already known
    # Processes that its import started are now children of the master. So is a worker that was never reported.
    draft.set_generation(number, left_behind=True, template=None if template.unfit else FleetTemplate())
    if template.told:
        return
    draft.log(f"the template (pid {template.pid}) ended: {how}", LogLevel.WARNING)
    if template.ready and draft.now - template.forked_at > BOOT_BACKOFF_MAX_S:
        draft.set_generation(number, boot_failures=0)
    when = "" if template.ready else " before it was ready"
    problem = f"the template ended{when}: {how}"
    boot_failed(draft, number, forked_at=template.forked_at, problem=problem)


def look(draft: Draft, number: int) -> None:
    """Kill the template if it is late. Another one takes its place."""
    generation = draft.fleet.generations[number]
    template = generation.template
    if template is None or not template.pid or template.told:
        return
    if not template.ready:
        if draft.late_by(template.forked_at) > generation.limits.boot_timeout_s:
            _kill(draft, number, f"it was not ready within {generation.limits.boot_timeout_s:g} s")
        return
    asked_at = [worker.forked_at for worker in draft.fleet.workers_of(number) if not worker.pid]
    if asked_at and draft.late_by(max(template.answered_at, min(asked_at))) > ANSWER_TIMEOUT_S:
        _kill(draft, number, f"it has not forked a worker within {ANSWER_TIMEOUT_S:g} s")


def end(draft: Draft, number: int) -> None:
    """Kill the template. It holds nothing, so SIGKILL does no harm."""
    template = draft.fleet.generations[number].template
    if template is not None and template.pid and not template.told:
        draft.actions.append(SendSignal(template.pid, signal.SIGKILL))
        _set(draft, number, told=signal.SIGKILL)


def is_there(draft: Draft, number: int) -> bool:
    template = draft.fleet.generations[number].template
    return template is not None and bool(template.pid or template.being_forked)


def _kill(draft: Draft, number: int, why: str) -> None:
    template = draft.fleet.generations[number].template
    assert template is not None
    draft.log(f"killing the template (pid {template.pid}): {why}", LogLevel.ERROR)
    end(draft, number)
    boot_failed(draft, number, forked_at=template.forked_at, problem=f"the template: {why}")


def _set(draft: Draft, number: int, **changes: Any) -> None:
    template = draft.fleet.generations[number].template
    assert template is not None
    draft.set_generation(number, template=replace(template, **changes))
