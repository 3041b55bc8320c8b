"""Removes observers that are gone."""

from __future__ import annotations

from reproq_prefork.store.steward_store import (
    WAITERS_BATCH,
    StewardStore,
)

MORE_WAITERS_S = 0.1


class ForgetWaiters:
    """Removes observers who waited for the end of a run and exited without removing themselves."""

    def __init__(self, *, period_s: float) -> None:
        self.period_s = self._period_s = period_s

    def run(self, store: StewardStore) -> None:
        self.period_s = self._period_s if store.forget_waiters() < WAITERS_BATCH else MORE_WAITERS_S
