"""Says on standard error how far a long action has come."""

from __future__ import annotations

import time

from reproq_prefork.cli.printing import note
from reproq_prefork.cli.text import how_many

INTERVAL_S = 5.0


class Progress:
    """A line at most every `INTERVAL_S`. An action that takes less than that prints none."""

    def __init__(self, verb: str) -> None:
        """`verb` says what is done with the runs, as in `deleted`."""
        self._verb = verb
        self._next_at = time.monotonic() + INTERVAL_S

    def show(self, runs: int) -> None:
        """`runs`: how many are done so far."""
        now = time.monotonic()
        if now >= self._next_at:
            self._next_at = now + INTERVAL_S
            note(f"{self._verb} {how_many(runs, 'run')} so far")
