"""A duty of a steward: something that it does for its host again after each period."""

from __future__ import annotations

from typing import Protocol

from reproq_prefork.store.steward_store import (
    StewardStore,
)


class Duty(Protocol):
    period_s: float

    def run(self, store: StewardStore) -> None:
        """Do the duty once. Raises what `store` raises; the steward then tries again a period later."""
