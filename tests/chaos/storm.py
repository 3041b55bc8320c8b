"""One storm from its first task to its last: faults, healing, draining, and what is left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from tests.chaos.arena import Arena, arena
from tests.chaos.clock import boottime
from tests.chaos.collect import history, wall_clock_offset_s
from tests.chaos.history import History
from tests.chaos.nemesis import Nemesis
from tests.chaos.schedule import Planned
from tests.support.supervisor.supervisor import Connection
from tests.support.waiting import wait_until

STALL_S = 60.0  # without a run that ends, while there are some: nothing will come any more
GONE_TIMEOUT_S = 10.0


def storm(planned: Sequence[Planned], seed: int, directory: Path) -> History:
    """Faults as planned, while producers enqueue all the time."""
    with arena(directory) as made:
        return rage(made, planned, made.producing(seed))


def rage(arena: Arena, planned: Sequence[Planned], producing: AbstractContextManager[None]) -> History:
    """`producing`: has runs enqueued before the faults begin, and ends some time after everything was healed."""
    offset_s = wall_clock_offset_s()
    for host in arena.hosts.values():
        host.start()
    with producing:
        faults = Nemesis(arena, planned).storm()
        healed_at = boottime()
    with arena.connect() as connection:
        _drain(connection)
        for host in arena.hosts.values():
            host.stop()
        leftovers = [*_left_over(arena, connection)]
    return history(arena, faults, healed_at=healed_at, offset_s=offset_s, leftovers=leftovers)


def _drain(connection: Connection) -> None:
    """Until nothing is left to do, or nothing is done any more: what is left then, the checker finds."""
    left, since = -1, boottime()
    while (now_left := _unfinished(connection)) > 0:
        if now_left != left:
            left, since = now_left, boottime()
        if boottime() - since > STALL_S:
            return
        time.sleep(0.1)


def _unfinished(connection: Connection) -> int:
    row = connection.execute(
        "select count(*) from task_runs where status in ('PENDING', 'RUNNING')"
    ).fetchone()
    assert row is not None
    return int(row[0])


def _left_over(arena: Arena, connection: Connection) -> Sequence[str]:
    found = [sentence for host in arena.hosts.values() for sentence in host.leftovers]
    found += [f"process {stray.pid} is left: {' '.join(stray.cmdline())}" for stray in arena.strays()]
    try:
        wait_until(lambda: not _sessions(connection), GONE_TIMEOUT_S, "all connections to end")
    except AssertionError:
        found += [f"a connection is left: {name}" for name in _sessions(connection)]
    locks = connection.execute(
        "select locktype, mode from pg_locks join pg_stat_activity using (pid)"
        " where pid <> pg_backend_pid() and locktype <> 'virtualxid' and backend_type = 'client backend'"
    ).fetchall()
    found += [f"a lock is left: {mode} on {kind}" for kind, mode in locks]
    holders = connection.execute("select id from reproq_workers where lease_expires_at > now()").fetchall()
    found += [f"worker {worker_id} is registered, and gone" for (worker_id,) in holders]
    found += [f"a temporary file is left: {path.name}" for path in arena.directory.glob("tmp-*/*")]
    return found


def _sessions(connection: Connection) -> list[str]:
    rows = connection.execute(
        "select application_name from pg_stat_activity"
        " where backend_type = 'client backend' and pid <> pg_backend_pid()"
    ).fetchall()
    return [name for (name,) in rows]
