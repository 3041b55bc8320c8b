"""What happens in the demo, in order."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

from reproq_prefork.demo.crash import Recovery, kill_a_busy_worker
from reproq_prefork.demo.interruption import Interruption
from reproq_prefork.demo.postgres import EmbeddedPostgres
from reproq_prefork.demo.results import check_results, results
from reproq_prefork.demo.screen import Screen
from reproq_prefork.demo.stage import WORKERS, Stage, Unexpected, raised_stage
from reproq_prefork.model.run import FINAL_STATUSES, TaskRun
from reproq_prefork.store.migrate import migrate
from reproq_prefork.store.migration_files import known_migrations
from reproq_prefork.store.runs import enqueue, get_run

TASKS = 200
FAILING_EVERY = 25  # one task in 25 fails in its first attempt
TAKES_MS = (60, 120)
PROGRESS_INTERVAL_S = 0.1
SHOWN_DIGITS = 16


class Stopwatch:
    def __init__(self) -> None:
        self._began = self._lap = time.monotonic()

    def lap_s(self) -> float:
        before, self._lap = self._lap, time.monotonic()
        return self._lap - before

    def total_s(self) -> float:
        return time.monotonic() - self._began


def run_demo(screen: Screen, environ: Mapping[str, str]) -> None:
    """Run the whole demo, and leave nothing behind.

    Raises ReproqError; KeyboardInterrupt or SystemExit if it is asked to end.
    """
    watch = Stopwatch()
    server = EmbeddedPostgres()
    interruption = Interruption()
    screen.line(f"{TASKS} tasks, {WORKERS} workers and one kill -9, on a private PostgreSQL", bold=True)
    screen.line()
    with server, screen:
        interruption.wait()
        screen.line(f"  PostgreSQL {server.version} started in a temporary directory", took_s=watch.lap_s())
        version = migrate(server.url, known_migrations())[-1].migration.version
        screen.line(f"  schema migrated to version {version}", took_s=watch.lap_s())
        with raised_stage(server, environ, interruption) as stage:
            _meet_the_workers(stage, screen, watch)
            _play(stage, screen, watch)
    screen.line()
    screen.line("  everything stopped and removed; total time", took_s=watch.total_s())


def _meet_the_workers(stage: Stage, screen: Screen, watch: Stopwatch) -> None:
    workers = stage.wait_for(lambda: w if len(w := stage.workers()) == WORKERS else (), "the workers")
    pids = ", ".join(str(worker.pid) for worker in workers)
    screen.line(f"  master {stage.supervisor.pid} with workers {pids}", took_s=watch.lap_s())


def _play(stage: Stage, screen: Screen, watch: Stopwatch) -> None:
    tasks = _enqueue(stage)
    screen.line(f"  {TASKS} tasks enqueued in one transaction", took_s=watch.lap_s())
    screen.line()
    began = time.monotonic()
    _watch_progress(stage, screen, began, until=TASKS // 2)
    recovery = _crash(stage, screen)
    _watch_progress(stage, screen, began, until=TASKS)
    screen.end_progress()
    screen.line()
    by_id, by_hash = tasks[16], tasks[41]
    watch.lap_s()
    replays = [
        _replay(stage, screen, watch, by_id, "--requeue-id", str(by_id.id)),
        _replay(stage, screen, watch, by_hash, "--requeue-hash", by_hash.spec_hash),
    ]
    runs = [get_run(stage.store.connection, run.id) for run in (*tasks, *replays)]
    screen.line()
    for what, how_much, remark in results(runs, TASKS, recovery):
        screen.line(f"  {what:<10} {how_much:>6}   {remark}".rstrip())
    check_results(runs)
    screen.line()
    screen.line("  Next: set DATABASE_URL, then `reproq-prefork migrate` and")
    screen.line("        `reproq-prefork --command ./your-program` (`reproq-prefork --help`)")


def _enqueue(stage: Stage) -> Sequence[TaskRun]:
    with stage.store.connection.transaction():
        return [enqueue(stage.store.connection, _invoice(number)) for number in range(1, TASKS + 1)]


def _invoice(number: int) -> dict[str, Any]:
    invoice: dict[str, Any] = {
        "invoice": number,
        "cents": [random.randrange(100, 10_000) for _ in range(3)],
        "takes_ms": random.randint(*TAKES_MS),
    }
    return {**invoice, "failing_attempts": 1} if number % FAILING_EVERY == 1 else invoice


def _watch_progress(stage: Stage, screen: Screen, began: float, *, until: int) -> None:
    """Show the progress until so many runs have finished."""

    def is_reached() -> bool:
        done = _finished(stage)
        screen.progress(done, TASKS, done / (time.monotonic() - began))
        return done >= until

    stage.wait_for(is_reached, f"{until} runs to finish", interval_s=PROGRESS_INTERVAL_S)


def _finished(stage: Stage) -> int:
    return sum(queue.count(status).runs for queue in stage.store.queues() for status in FINAL_STATUSES)


def _crash(stage: Stage, screen: Screen) -> Recovery:
    recovery = kill_a_busy_worker(stage)
    run_id = recovery.victim.run_id
    screen.line(f"  $ kill -9 {recovery.victim.pid}, a worker in the middle of run {run_id}", fg="red")
    loss = (
        "it had not started"
        if recovery.attempt is None
        else f"attempt {recovery.attempt} is recorded as lost"
    )
    screen.line(f"  {recovery.pending_s * 1000:6.0f} ms  run {run_id} is PENDING again; {loss}")
    screen.line(f"  {recovery.claimed_s * 1000:6.0f} ms  {recovery.claimed_by} has claimed it")
    screen.line()
    return recovery


def _replay(
    stage: Stage, screen: Screen, watch: Stopwatch, original: TaskRun, flag: str, value: str
) -> TaskRun:
    """Run a task again with the command that a user would use. Returns the new run when it has finished."""
    shown = value if len(value) < SHOWN_DIGITS else f"{value[:SHOWN_DIGITS]}…"
    screen.line(f"  $ reproq-prefork {flag} {shown}")
    run_id = int(stage.commands.run(flag, value))
    connection = stage.store.connection
    replay = stage.wait_for(
        lambda: run if (run := get_run(connection, run_id)).is_finished else None, f"run {run_id} to finish"
    )
    assert replay is not None
    if replay.result != get_run(connection, original.id).result:
        raise Unexpected(f"run {run_id}, a replay of run {original.id}, gave another result")
    screen.line(f"    run {run_id} gave the same result as run {original.id}", took_s=watch.lap_s())
    return replay
