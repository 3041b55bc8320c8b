"""How soon the dead are replaced, and when a generation that cannot boot is given up."""

from __future__ import annotations

import signal

from reproq_prefork.errors import ExitStatus
from reproq_prefork.fleet_draft import Draft
from reproq_prefork.fleet_reload import end_reload, is_starting
from reproq_prefork.fleet_state import RESPAWN_BURST, Phase
from reproq_prefork.log import LogLevel

BOOT_FAILURE_LIMIT = 3  # in a row, in a generation that was never ready
BOOT_BACKOFF_BASE_S = 0.5
BOOT_BACKOFF_MAX_S = 30.0
BOOT_BACKOFF_DOUBLINGS = 10  # past the cap; a fleet may fail for days, and a float would overflow
RESPAWNS_A_SECOND = 10.0
FORK_RETRY_S = 1.0


def charge_respawn(draft: Draft, number: int) -> None:
    generation = draft.fleet.generations[number]
    earned = (draft.now - generation.credited_at) * RESPAWNS_A_SECOND
    credit = min(RESPAWN_BURST, generation.respawn_credit + earned) - 1
    draft.set_generation(number, respawn_credit=credit, credited_at=draft.now)
    draft.postpone_forks(number, draft.now + max(0.0, -credit) / RESPAWNS_A_SECOND)


def boot_failed(draft: Draft, number: int, *, forked_at: float, problem: str) -> None:
    """A worker or the template of this generation, forked then, did not become ready, or not for long."""
    generation = draft.fleet.generations[number]
    failures = generation.boot_failures
    if not failures or forked_at > generation.boot_failed_at:
        # Forked after the last failure. One trouble that meets eight workers at once is one failure.
        failures += 1
        draft.set_generation(number, boot_failures=failures, boot_failed_at=draft.now)
    doublings = min(failures - 1, BOOT_BACKOFF_DOUBLINGS)
    draft.postpone_forks(number, draft.now + min(BOOT_BACKOFF_MAX_S, BOOT_BACKOFF_BASE_S * 2.0**doublings))
    gives_up = not generation.was_ready and not generation.draining and failures >= BOOT_FAILURE_LIMIT
    if gives_up and draft.fleet.phase is Phase.RUNNING:
        give_up(draft, number, problem)


def give_up(draft: Draft, number: int, problem: str) -> None:
    """A generation cannot boot. The fleet goes on with another that stays, if there is one."""
    if not any(g.number != number and not g.draining for g in draft.fleet.generations.values()):
        draft.log(f"giving up: {problem}", LogLevel.ERROR)
        draft.set(exit_status=ExitStatus.BOOT_FAILED)
        draft.advance(Phase.STOPPING, "the workers cannot boot")
        return
    draft.set_generation(number, draining=True)
    draft.tell_workers(number, signal.SIGQUIT)
    if is_starting(draft, number):
        end_reload(draft, f"reload rolled back, the old workers stay: {problem}", LogLevel.ERROR)
    else:
        draft.log(f"giving up on generation {number}, the next one starts: {problem}", LogLevel.ERROR)


def fork_failed(draft: Draft, reason: str) -> float:
    """No process can be had; gives the time at which it is tried again."""
    draft.log(f"no process can be started, trying again: {reason}", LogLevel.ERROR)
    return draft.now + FORK_RETRY_S
