"""A worker's connection to the database: opened, lost, opened again, and how long the worker waits for it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

from reproq_prefork.errors import DatabaseUnavailable, ReproqError
from reproq_prefork.store.connection import reconnect_delays_s
from reproq_prefork.store.worker_store import WorkerStore
from reproq_prefork.text.log import Log
from reproq_prefork.text.recurring import Recurring
from reproq_prefork.unix.orders import Orders
from reproq_prefork.unix.panel import WorkerPanel
from reproq_prefork.unix.scoreboard import WorkerState
from reproq_prefork.unix.signals import wait_readable

QUIT_PATIENCE_S = 3.0  # to record hand-backs while there is no connection


class ToldToStop(ReproqError):
    """Told to stop while the database was out of reach: nothing more can be recorded."""


class Link:
    """`store` is the connection. `lost` is the reason to open it again. Raises only `ToldToStop`."""

    store: WorkerStore
    lost: ReproqError | None = None

    def __init__(
        self, *, connect: Callable[[], WorkerStore], panel: WorkerPanel, orders: Orders, log: Log
    ) -> None:
        self._connect = connect
        self._panel = panel
        self._orders = orders
        self._trouble = Recurring(log)
        self._delays_s: Iterator[float] | None = None
        self._quit_seen_at: float | None = None

    def open(self, *, holding: bool = False) -> None:
        """Connect, however long that takes. `holding`: as for `pause`."""
        self._panel.update(state=WorkerState.CONNECTING)
        while True:
            try:
                self.store = self._connect()
            except DatabaseUnavailable as error:
                self.pause(error, holding=holding)
            else:
                return

    def pause(self, reason: ReproqError, *, holding: bool) -> None:
        """Wait before the next try; longer each time, but not longer than an order to stop allows.

        `holding`: the worker has something to record, so an order to drain does not end the wait.
        """
        if self._delays_s is None:
            self._delays_s = reconnect_delays_s()
        delay_s = next(self._delays_s)
        self._trouble.warning(
            "the database cannot be used now; trying again",
            reason=str(reason),
            delay_s=round(max(0.0, min(delay_s, self._patience_left_s())), 3),
        )
        self.rest(delay_s)
        if self._orders.drain and not holding:
            raise ToldToStop("told to stop while the database was out of reach")
        if self._patience_left_s() <= 0:
            raise ToldToStop("told to stop at once, and what was held could not be recorded")

    def warn_of_loss(self, lost: ReproqError) -> None:
        """Log that the connection is lost. If that repeats, log it less and less often."""
        self._trouble.warning("the connection is lost", reason=str(lost))

    def rest(self, seconds: float) -> None:
        """Wait for `seconds`, or until an order arrives."""
        wait_readable(self._orders.fds, max(0.0, min(seconds, self._patience_left_s())))
        self._panel.update()
        self._orders.read()

    def answered(self) -> None:
        """Note that the server has answered: the next wait is short again."""
        self._delays_s = None

    def _patience_left_s(self) -> float:
        """How much time is left to record what is held. No limit until the worker is told to stop at once."""
        if not self._orders.quit:
            return math.inf
        if self._quit_seen_at is None:
            self._quit_seen_at = time.monotonic()
        return self._quit_seen_at + QUIT_PATIENCE_S - time.monotonic()
