"""How many runs a worker claims at once, and from where in its queues: decided by what it has met so far.

A worker whose tasks take microseconds spends most of its time on commits, so it claims as many as fit into
`BATCH_BUDGET_S` and records their ends together. One whose tasks are long claims one at a time.
"""

from __future__ import annotations

BATCH_BUDGET_S = 0.02
MAX_BATCH = 400
BATCH_STRETCH_S = (
    0.1  # what is not started by then is handed back: no run waits longer behind another's slow one
)
MAX_RESULT_BYTES_HELD = 4 << 20  # results that wait for one commit; beyond that a batch ends
WEIGHT_OF_THE_LATEST = 0.3


class BatchSize:
    """How many runs to ask for: doubled from 1 on as long as that many are got and fit into the budget."""

    def __init__(self) -> None:
        self._size = 1
        self._seconds_each: float | None = None

    @property
    def size(self) -> int:
        return self._size

    def claimed(self, runs: int) -> None:
        """So many were got. Fewer than asked for: the queue is empty, or the next one is to be claimed alone."""
        self._size = max(1, min(self._size, runs))

    def ended(self, runs: int, seconds: float) -> None:
        """So many of them were run, in so many seconds."""
        latest = seconds / runs
        if self._seconds_each is None or latest > self._seconds_each:
            self._seconds_each = latest  # at once: who waits behind a slow one waits for nothing
        else:
            self._seconds_each += WEIGHT_OF_THE_LATEST * (latest - self._seconds_each)
        fit = int(BATCH_BUDGET_S / max(self._seconds_each, 1e-9))
        self._size = max(1, min(2 * self._size, fit, MAX_BATCH))
