"""How soon dead workers are replaced, when a generation is ready, and when the master gives up one that cannot
boot.
"""

from __future__ import annotations

import signal

from reproq_prefork.errors import ExitStatus
from reproq_prefork.fleet.actions import NotifySystemd
from reproq_prefork.fleet.draft import Draft
from reproq_prefork.fleet.events import WorkerView
from reproq_prefork.fleet.reload import end_reload, is_starting
from reproq_prefork.fleet.state import RESPAWN_BURST, FleetWorker, Generation, Phase
from reproq_prefork.text.log import LogLevel

BOOT_FAILURE_LIMIT = 3  # in a row, in a generation that was never ready
BOOT_BACKOFF_BASE_S = 0.5
BOOT_BACKOFF_MAX_S = 30.0
BOOT_BACKOFF_DOUBLINGS = 10  # already past the maximum; a fleet may fail for days, and a float would overflow
RESPAWNS_A_SECOND = 10.0
FORK_RETRY_S = 1.0


def charge_respawn(draft: Draft, number: int) -> None:
    generation = draft.fleet.generations[number]
    earned = (draft.now - generation.credited_at) * RESPAWNS_A_SECOND
    credit = min(RESPAWN_BURST, generation.respawn_credit + earned) - 1
    draft.set_generation(number, respawn_credit=credit, credited_at=draft.now)
    draft.postpone_forks(number, draft.now + max(0.0, -credit) / RESPAWNS_A_SECOND)


def boot_limit_s(draft: Draft, worker: FleetWorker, view: WorkerView) -> float | None:
    """How long after its fork this worker, which never was ready, must become ready. None: no limit.

    If another worker has a connection, or had one before, a worker that waits for the database has not failed.
    """
    generation = draft.fleet.generations[worker.generation]
    if view.booting:
        return generation.limits.boot_timeout_s
    if generation.was_ready or (view.connecting and _ready_of(draft, generation.number)):
        return None
    return generation.limits.boot_timeout_s + (generation.limits.connect_s if view.connecting else 0.0)


def note_ready(draft: Draft, number: int) -> None:
    """A generation is ready when all its workers are ready, except those that wait for a connection in vain.

    The server may not have connections for all of them, and the workers that have one already work.
    """
    generation = draft.fleet.generations[number]
    ready = len(_ready_of(draft, number))
    if ready >= generation.target:
        if not generation.was_ready:
            draft.set_generation(number, was_ready=True)
            _say_ready(
                draft,
                number,
                ("1 worker" if ready == 1 else f"{ready} workers") + _purpose(generation, ","),
                "1 new worker is ready" if ready == 1 else f"{ready} new workers are ready",
            )
        elif generation.lacks_workers:
            draft.set_generation(number, lacks_workers=False)
            draft.log(f"all {ready} workers are ready now")
        return
    if generation.was_ready or not ready or ready + len(_left_waiting(draft, number)) < generation.target:
        return
    draft.set_generation(number, was_ready=True, lacks_workers=True)
    wait = "wait for a connection to the database"
    some = f"{ready} of {generation.target}"
    _say_ready(
        draft,
        number,
        f"{some} workers; the others {wait}{_purpose(generation, ';')}",
        f"{some} new workers are ready, and the others {wait}",
        LogLevel.WARNING,
    )


def _purpose(generation: Generation, mark: str) -> str:
    return f"{mark} {generation.limits.serves}" if generation.limits.serves else ""


def _ready_of(draft: Draft, number: int) -> list[FleetWorker]:
    return [worker for worker in draft.fleet.workers_of(number) if worker.ready and not worker.told]


def _left_waiting(draft: Draft, number: int) -> list[FleetWorker]:
    boot_timeout_s = draft.fleet.generations[number].limits.boot_timeout_s
    return [
        worker
        for worker in draft.fleet.workers_of(number)
        if worker.connecting and not worker.told and draft.late_by(worker.forked_at) > boot_timeout_s
    ]


def _say_ready(
    draft: Draft, number: int, at_start: str, at_reload: str, level: LogLevel = LogLevel.INFO
) -> None:
    if not is_starting(draft, number):
        draft.actions.append(NotifySystemd("READY=1"))
        draft.log(f"ready: {at_start}", level)
        return
    for older in list(draft.fleet.generations.values()):
        if older.number != number:
            draft.set_generation(older.number, draining=True)
    end_reload(draft, f"reloaded: {at_reload}, the old ones finish what they run", level)


def boot_failed(draft: Draft, number: int, *, forked_at: float, problem: str) -> None:
    """Note that a worker or the template of this generation, forked at `forked_at`, failed to boot.

    It did not become ready, or not for long.
    """
    generation = draft.fleet.generations[number]
    failures = generation.boot_failures
    if not failures or forked_at > generation.boot_failed_at:
        # It was forked after the last failure. One problem that hits eight workers at once is one failure.
        failures += 1
        draft.set_generation(number, boot_failures=failures, boot_failed_at=draft.now)
    doublings = min(failures - 1, BOOT_BACKOFF_DOUBLINGS)
    draft.postpone_forks(number, draft.now + min(BOOT_BACKOFF_MAX_S, BOOT_BACKOFF_BASE_S * 2.0**doublings))
    gives_up = not generation.was_ready and not generation.draining and failures >= BOOT_FAILURE_LIMIT
    if gives_up and draft.fleet.phase is Phase.RUNNING:
        give_up(draft, number, problem)


def give_up(draft: Draft, number: int, problem: str) -> None:
    """Give up a generation that cannot boot. The fleet continues with another that stays, if there is one."""
    if not any(g.number != number and not g.draining for g in draft.fleet.generations.values()):
        draft.log(f"giving up: {problem}", LogLevel.ERROR)
        draft.set(exit_status=ExitStatus.BOOT_FAILED)
        draft.advance(Phase.STOPPING, "the workers cannot boot")
        return
    draft.set_generation(number, draining=True)
    draft.signal_workers(number, signal.SIGQUIT)
    if is_starting(draft, number):
        end_reload(draft, f"reload rolled back, the old workers stay: {problem}", LogLevel.ERROR)
    else:
        draft.log(f"giving up on generation {number}, the next one starts: {problem}", LogLevel.ERROR)


def fork_failed(draft: Draft, reason: str) -> float:
    """Log that no process could be started. Returns the time of the next try."""
    draft.log(f"no process can be started, trying again: {reason}", LogLevel.ERROR)
    return draft.now + FORK_RETRY_S
