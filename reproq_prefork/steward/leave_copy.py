"""Leaves a database that has become a copy."""

from __future__ import annotations

from reproq_prefork.store.steward_store import (
    StewardStore,
)


class LeaveCopy:
    """Gives up a database that has become a copy: a restore has brought the runs of another one.

    A trigger takes their registrations from its workers at once. This is for a restore without triggers.
    """

    def __init__(self, *, period_s: float) -> None:
        self.period_s = period_s

    def run(self, store: StewardStore) -> None:
        store.leave_copy()
