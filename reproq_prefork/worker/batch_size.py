"""How many runs a worker claims at once: decided by how long its runs have taken so far.

A worker whose tasks take microseconds spends most of its time on commits. So it claims as many runs as fit into
`BATCH_BUDGET_S` and records their ends together. A worker whose tasks are long claims one at a time.
"""

from __future__ import annotations

BATCH_BUDGET_S = 0.02
MAX_BATCH = 400
BATCH_STRETCH_S = (
    0.1  # a run that has not started by then is handed back: no run waits longer behind a slow one
)
MAX_RESULT_BYTES_HELD = 4 << 20  # results that wait for one commit; above that, the batch ends
WEIGHT_OF_THE_LATEST = 0.3


class BatchSize:
    """How many runs to claim: 1 at first, then doubled as long as the claim returns that many and they fit into
    the budget.
    """

    def __init__(self) -> None:
        self._size = 1
        self._seconds_each: float | None = None

    @property
    def size(self) -> int:
        return self._size

    def claimed(self, runs: int) -> None:
        """The claim returned `runs` runs. If it asked for more, the queue is empty or the next run is claimed
        alone.
        """
        self._size = max(1, min(self._size, runs))

    def ended(self, runs: int, seconds: float) -> None:
        """`runs` of them were executed, in `seconds`."""
        latest = seconds / runs
        if self._seconds_each is None or latest > self._seconds_each:
            self._seconds_each = latest  # at once: runs must not wait behind a slow one for long
        else:
            self._seconds_each += WEIGHT_OF_THE_LATEST * (latest - self._seconds_each)
        fit = int(BATCH_BUDGET_S / max(self._seconds_each, 1e-9))
        self._size = max(1, min(2 * self._size, fit, MAX_BATCH))
