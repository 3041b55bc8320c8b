"""Selects many unfinished runs, and cancels them batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from reproq_prefork.model.run import Status
from reproq_prefork.store.sender import Fetch

PAGE_RUNS = 500_000  # ids held in memory
BATCH_RUNS = 1_000  # per transaction

_ABOVE_ALL_IDS = 2**63 - 1
_LIKE = str.maketrans({"\\": r"\\", "%": r"\%", "_": r"\_", "*": "%", "?": "_"})


@dataclass(frozen=True, slots=True)
class Selection:
    """The PENDING and RUNNING runs that match all fields. A field that is None matches every run.

    `task` is a pattern for the path of a task: `*` matches any characters, `?` matches one.
    """

    statuses: frozenset[Status] = frozenset({Status.PENDING, Status.RUNNING})
    queues: Sequence[str] | None = None
    task: str | None = None
    older_than_s: float | None = None


@dataclass(frozen=True, slots=True)
class CancelledBatch:
    """The result of a batch: how many runs are CANCELLED, and how many run and have been asked to stop.

    `passed_by`: others had locked them at that moment, or their status changed after they were selected.
    """

    cancelled: int
    asked: int
    passed_by: int


def like_pattern(pattern: str) -> str:
    """For LIKE: `*` matches any characters, `?` matches one."""
    return pattern.translate(_LIKE)


class UnfinishedRuns:
    """`fetch` takes the name of a statement and its parameters. Its errors pass through."""

    def __init__(self, fetch: Fetch, selection: Selection) -> None:
        self._fetch = fetch
        self._statuses = {
            "pending": Status.PENDING in selection.statuses,
            "running": Status.RUNNING in selection.statuses,
        }
        self._filters = {
            "queues": None if selection.queues is None else list(selection.queues),
            "task_like": None if selection.task is None else like_pattern(selection.task),
            "older_than_seconds": selection.older_than_s,
        }

    def count(self) -> int:
        matching: int = self._page(_ABOVE_ALL_IDS, max_runs=0).matching
        return matching

    def cancel(
        self, *, message: str = "the task was cancelled", end_running: bool = False, finish_due: bool = True
    ) -> Iterator[CancelledBatch]:
        """Cancel all runs that match now, the newest first. Yields the result of each batch.

        Each batch is committed alone, so an interruption loses nothing that is done. Workers take the oldest runs
        first. This begins at the other end, so that the dead rows it leaves are not in their way.

        `end_running`: RUNNING runs are CANCELLED as well, since no worker can hold them. `finish_due`: announce
        these ends to the application.
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
