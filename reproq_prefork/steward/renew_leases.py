"""Renews the leases of the host's workers."""

from __future__ import annotations

import random
import time

from reproq_prefork.steward.workers import live_workers_of
from reproq_prefork.store.steward_store import (
    StewardStore,
)
from reproq_prefork.unix.scoreboard import Scoreboard, boottime_ns

RENEW_RETRY_S = 0.5  # after a refused renewal; at most a period


class RenewLeases:
    """Renews the leases of all live workers, and shows each on the scoreboard until when it may believe in its
    lease.

    The lease is counted from the moment *before* the renewal was sent, so a worker's clock never ends the lease
    later than the server's.

    This duty has no fixed time. The steward asks before each statement whether it is due (`is_due`). So no other
    duty, and nothing that others do to a duty, can delay a renewal by more than one statement.
    """

    def __init__(
        self,
        scoreboard: Scoreboard,
        steward: int,
        *,
        period_s: float,
        lease_s: float,
        believed_lease_s: float,
    ) -> None:
        self.period_s = period_s
        self._scoreboard = scoreboard
        self._steward = steward
        self._lease_s = lease_s
        self._believed_ns = int(believed_lease_s * 1e9)
        self.due_at = 0.0  # monotonic seconds

    @property
    def is_due(self) -> bool:
        return time.monotonic() >= self.due_at

    def run(self, store: StewardStore) -> None:
        began = time.monotonic()
        self.due_at = began + min(RENEW_RETRY_S, self.period_s)
        self._renew(store)
        self.due_at = began + self.period_s * random.uniform(0.9, 1.1)

    def _renew(self, store: StewardStore) -> None:
        workers = live_workers_of(self._scoreboard, self._steward)
        if not workers:
            return
        sent_ns = boottime_ns()
        renewed = store.renew_leases([record.worker_id for record in workers.values()], lease_s=self._lease_s)
        for slot, record in workers.items():
            kept = record.worker_id in renewed
            self._scoreboard.update_lease(
                slot,
                record,
                lease_end_ns=sent_ns + self._believed_ns if kept else 0,
                lost=not kept,
            )
