"""Stops work in a database that has become a copy."""

from __future__ import annotations

from reproq_prefork.store.steward_store import (
    StewardStore,
)


class LeaveCopy:
    """Stops work in a database that has become a copy, because a restore has brought runs of another database.

    Normally a trigger removes the registrations of the workers at once. This is for a restore without triggers.
    """

    def __init__(self, *, period_s: float) -> None:
        self.period_s = period_s

    def run(self, store: StewardStore) -> None:
        store.leave_copy()
