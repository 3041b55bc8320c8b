"""Many runs that have not finished, chosen by what they are, and cancelled batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reproq_prefork.model.run import Status

PAGE_RUNS = 500_000  # whose ids are held in memory
BATCH_RUNS = 1_000  # a transaction

_ABOVE_ALL_IDS = 2**63 - 1
_LIKE = str.maketrans({"\\": r"\\", "%": r"\%", "_": r"\_", "*": "%", "?": "_"})


@dataclass(frozen=True, slots=True)
class Selection:
    """Of PENDING and RUNNING runs those that match all of it; what is None matches every run.

    `task` is a pattern for the path of a task: `*` stands for any characters, `?` for one.
    """

    statuses: frozenset[Status] = frozenset({Status.PENDING, Status.RUNNING})
    queues: Sequence[str] | None = None
    task: str | None = None
    older_than_s: float | None = None


@dataclass(frozen=True, slots=True)
class CancelledBatch:
    """What became of a batch: how many are CANCELLED, how many run and have workers that were asked to end them.

    `passed_by`: others held them at that moment, or they have become something else since they were selected.
    """

    cancelled: int
    asked: int
    passed_by: int


class UnfinishedRuns:
    """`fetch` takes the name of a statement and its parameters, and raises what it raises."""

    def __init__(
        self, fetch: Callable[[str, Mapping[str, Any]], Sequence[Any]], selection: Selection
    ) -> None:
        self._fetch = fetch
        self._statuses = {
            "pending": Status.PENDING in selection.statuses,
            "running": Status.RUNNING in selection.statuses,
        }
        self._filters = {
            "queues": None if selection.queues is None else list(selection.queues),
            "task_like": None if selection.task is None else selection.task.translate(_LIKE),
            "older_than_seconds": selection.older_than_s,
        }

    def count(self) -> int:
        matching: int = self._page(_ABOVE_ALL_IDS, max_runs=0).matching
        return matching

    def cancel(
        self, *, message: str = "the task was cancelled", end_running: bool = False, finish_due: bool = True
    ) -> Iterator[CancelledBatch]:
        """Cancel all that match now, the newest first; gives what became of each batch.

        Each batch is committed by itself, so what was done when this is interrupted stays done. Workers take the
        oldest first: that this begins at the other end keeps what it leaves dead out of their way.

        `end_running`: RUNNING runs are CANCELLED as well, since no worker can hold them. `finish_due`: the
        application is notified of these ends.
        """
        before_id = _ABOVE_ALL_IDS
        while ids := self._page(before_id, max_runs=PAGE_RUNS).ids:
            for start in range(0, len(ids), BATCH_RUNS):
                batch = ids[start : start + BATCH_RUNS]
                (done,) = self._fetch(
                    "cancel_batch",
                    {
                        "run_ids": batch,
                        **self._statuses,
                        "message": message,
                        "end_running": end_running,
                        "finish_due": finish_due,
                    },
                )
                yield CancelledBatch(done.cancelled, done.asked, len(batch) - done.cancelled - done.asked)
            before_id = ids[-1]

    def _page(self, before_id: int, *, max_runs: int) -> Any:
        parameters = {**self._statuses, **self._filters, "before_id": before_id, "max_runs": max_runs}
        (page,) = self._fetch("select_unfinished", parameters)
        return page
