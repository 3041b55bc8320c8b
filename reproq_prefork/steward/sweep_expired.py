"""Resets runs whose holder is lost, on any host."""

from __future__ import annotations

from collections.abc import Callable

from reproq_prefork.steward.one_by_one import OneByOne
from reproq_prefork.store.steward_store import (
    SWEEP_BATCH,
    ResetRun,
    StewardStore,
)


class SweepExpired:
    """Resets the runs of holders whose lease has ended, on any host."""

    def __init__(
        self, *, period_s: float, one_by_one: OneByOne, on_reset: Callable[[tuple[ResetRun, ...]], None]
    ) -> None:
        self.period_s = self._period_s = period_s
        self._one_by_one = one_by_one
        self._on_reset = on_reset

    def run(self, store: StewardStore) -> None:
        done = self._one_by_one.do(
            store, lambda only: store.sweep_expired(only=only), store.expired_runs, may_fail=True
        )
        # The call found as many as it may, so more follow at once. Other duties run in between.
        has_more = not done.is_apart and len(done.runs) >= SWEEP_BATCH
        self.period_s = 0.0 if has_more else self._period_s
        self._on_reset(done.runs)
