"""A worker connects to the database after its host's steward, so that the steward always gets a connection.

If the server has too few connections for all, some workers have none, and the others do the work. Without a
steward, nobody would renew the leases, and all of them would end.
"""

from __future__ import annotations

from reproq_prefork.unix.orders import Orders
from reproq_prefork.unix.panel import WorkerPanel
from reproq_prefork.unix.scoreboard import Scoreboard, boottime_ns
from reproq_prefork.unix.signals import wait_readable

STALE_S = 5.0  # a worker does not wait for a steward that shows no sign of life for so long
LOOK_INTERVAL_S = 0.01  # at first; doubles each time, up to a quarter of a second
LONGEST_LOOK_INTERVAL_S = 0.25


def await_steward(scoreboard: Scoreboard, steward: int, panel: WorkerPanel, orders: Orders) -> None:
    """Return once the steward at this place has a connection, is dead or hangs, or this worker is told to stop."""
    began_ns = boottime_ns()
    interval_s = LOOK_INTERVAL_S
    while not orders.drain:
        record = scoreboard.read_steward(steward)
        if record is not None and record.connected:
            return
        seen_ns = began_ns if record is None else max(began_ns, record.heartbeat_ns)
        if boottime_ns() - seen_ns > STALE_S * 1e9:
            return
        panel.update()
        wait_readable(orders.fds, interval_s)
        interval_s = min(2 * interval_s, LONGEST_LOOK_INTERVAL_S)
        orders.read()
