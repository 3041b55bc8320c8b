"""Kills a worker in the middle of a task, and watches what happens to the task and to the worker's slot."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass

from reproq_prefork.demo.stage import Stage, Unexpected
from reproq_prefork.model.outcome import FailureKind
from reproq_prefork.model.run import TaskRun
from reproq_prefork.store.operator_store import RunAtWork, WorkerAtWork
from reproq_prefork.store.runs import get_run

# This long after its claim a task has surely begun. It takes at least 60 ms, so it has not ended.
WELL_UNDER_WAY_S = (0.02, 0.045)
WATCH_INTERVAL_S = 0.001
MAX_VICTIMS = 5


@dataclass(frozen=True, slots=True)
class Victim:
    worker_id: str
    pid: int
    run_id: int
    peers: frozenset[str]  # all workers at that moment


@dataclass(frozen=True, slots=True)
class Recovery:
    """How long after SIGKILL we *saw* that nobody held the run any more, and that another worker held it.

    We look about once a millisecond. So it may have happened a little earlier, and PENDING may have been too short
    for us to see.
    """

    victim: Victim
    attempt: (
        int | None
    )  # the attempt that the kill ended; None: on a busy machine, the kill came before its start
    pending_s: float
    claimed_s: float
    claimed_by: str  # which worker, in words


def kill_a_busy_worker(stage: Stage) -> Recovery:
    """SIGKILL a worker that executes a task, and wait until another has claimed that task.

    If the task ended before the signal came, kill another worker.
    """
    for _ in range(MAX_VICTIMS):
        victim = stage.wait_for(lambda: _busy_worker(stage), "a busy worker", interval_s=WATCH_INTERVAL_S)
        assert victim is not None
        os.kill(victim.pid, signal.SIGKILL)
        recovery = _watch(stage, victim, time.monotonic())
        if recovery is not None:
            return recovery
    raise Unexpected(f"{MAX_VICTIMS} workers were killed, and each had just finished its task")


def _busy_worker(stage: Stage) -> Victim | None:
    """A worker whose task is well under way."""
    workers = stage.workers()
    at_work: list[tuple[float, WorkerAtWork, RunAtWork]] = [
        (run.running_s, worker, run)
        for worker in workers
        for run in worker.runs
        if run.running_s is not None and WELL_UNDER_WAY_S[0] <= run.running_s <= WELL_UNDER_WAY_S[1]
    ]
    if not at_work:
        return None
    _, worker, run = min(at_work, key=lambda each: each[0])
    assert worker.pid is not None
    return Victim(worker.id, worker.pid, run.id, frozenset(each.id for each in workers))


def _watch(stage: Stage, victim: Victim, killed_at: float) -> Recovery | None:
    """None: the run had ended before its worker was killed."""
    pending_s: float | None = None

    def claimed_again() -> TaskRun | None:
        nonlocal pending_s
        run = get_run(stage.store.connection, victim.run_id)
        if run.leased_by == victim.worker_id:
            return None
        if pending_s is None:
            pending_s = time.monotonic() - killed_at
        return run if run.leased_by is not None or run.is_finished else None

    run = stage.wait_for(
        claimed_again, f"run {victim.run_id} to be claimed again", interval_s=WATCH_INTERVAL_S
    )
    claimed_s = time.monotonic() - killed_at
    assert run is not None
    assert pending_s is not None
    attempt = _lost_attempt(run, victim.worker_id)
    if attempt is None and victim.worker_id in run.worker_ids:
        return None
    return Recovery(victim, attempt, pending_s, claimed_s, _claimant(stage, victim, run.leased_by))


def _claimant(stage: Stage, victim: Victim, worker_id: str | None) -> str:
    pid = next((worker.pid for worker in stage.workers() if worker.id == worker_id), None)
    if pid is None:
        return "another worker"
    return f"worker {pid}" if worker_id in victim.peers else f"worker {pid}, its replacement,"


def _lost_attempt(run: TaskRun, worker_id: str) -> int | None:
    """The attempt of `run` that ended because this worker died, according to its `errors`."""
    for entry in run.errors:
        if entry["kind"] == FailureKind.WORKER_LOST and entry["worker"] == worker_id:
            return int(entry["attempt"])
    return None
