"""The results of the demo: read from the table at the end, and shown as a short table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from reproq_prefork.demo.crash import Recovery
from reproq_prefork.demo.stage import Unexpected
from reproq_prefork.model.outcome import FailureKind
from reproq_prefork.model.run import Status, TaskRun


def results(runs: Sequence[TaskRun], tasks: int, recovery: Recovery) -> list[tuple[str, str, str]]:
    """Rows of (what, how much, remark). The first `tasks` of `runs` were enqueued, the others are replays."""
    statuses = Counter(run.status for run in runs)
    kinds = Counter(entry["kind"] for run in runs for entry in run.errors)
    lost = kinds.pop(FailureKind.WORKER_LOST, 0)
    shown = {
        Status.SUCCESSFUL: statuses[Status.SUCCESSFUL],
        Status.FAILED: statuses[Status.FAILED],
        **statuses,
    }
    replays = len(runs) - tasks
    rows = [(status.value, str(runs_of), "") for status, runs_of in shown.items()]
    rows[0] = (*rows[0][:2], f"{tasks} tasks and {replays} replays")
    return [
        *rows,
        (
            "attempts",
            str(sum(run.attempts for run in runs)),
            f"{len(runs)} first ones, {kinds.total()} after a failure, {lost} after the kill",
        ),
        (
            "recovery",
            f"{recovery.pending_s * 1000:.0f} ms",
            f"from kill -9 to PENDING; after {recovery.claimed_s * 1000:.0f} ms it was claimed",
        ),
        ("speed", f"{speed(runs[:tasks]):.0f}/s", "tasks of 60 to 120 ms, each a process of its own"),
    ]


def speed(runs: Sequence[TaskRun]) -> float:
    """Runs per second, from the first start to the last end."""
    began = [run.started_at for run in runs if run.started_at is not None]
    ended = [run.finished_at for run in runs if run.finished_at is not None]
    return len(runs) / (max(ended) - min(began)).total_seconds()


def check_results(runs: Sequence[TaskRun]) -> None:
    """Check that every run succeeded, and that each failed attempt is in `errors`. Raises Unexpected."""
    failed = [run.id for run in runs if run.status is not Status.SUCCESSFUL]
    if failed:
        raise Unexpected(f"these runs did not succeed: {', '.join(map(str, failed))}")
    unexplained = [run.id for run in runs if run.attempts != 1 + len(run.errors)]
    if unexplained:
        raise Unexpected(
            f"these runs have attempts without a known reason: {', '.join(map(str, unexplained))}"
        )
