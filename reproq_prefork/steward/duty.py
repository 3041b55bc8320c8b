"""What a duty of a steward is: something done for its host, each period anew."""

from __future__ import annotations

from typing import Protocol

from reproq_prefork.store.steward_store import (
    StewardStore,
)


class Duty(Protocol):
    period_s: float

    def run(self, store: StewardStore) -> None:
        """Do it once. Raises what `store` raises; it is then done again a period later."""
