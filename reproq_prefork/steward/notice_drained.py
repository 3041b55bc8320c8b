"""Tells the master when the queues are empty, for --drain."""

from __future__ import annotations

from collections.abc import Callable

from reproq_prefork.store.steward_store import (
    StewardStore,
)


class NoticeDrained:
    """`--drain`: calls `drained` when nothing is left to do in the queues."""

    def __init__(self, *, period_s: float, drained: Callable[[], None]) -> None:
        self.period_s = period_s
        self._drained = drained

    def run(self, store: StewardStore) -> None:
        if store.queues_are_drained():
            self._drained()
