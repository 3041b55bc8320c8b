"""SIGKILL to a worker that is busy: how soon its task is PENDING, and how soon it runs again."""

from __future__ import annotations

import os
import signal
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import LiteralString

from benchmarks.bench import Bench
from benchmarks.figures import Series, Shape, Table
from benchmarks.peers.catalogue import PEERS
from benchmarks.servers import new_queue
from benchmarks.subject.installation import FORK, INLINE, Installation, supervisor
from benchmarks.subject.queue import Connection, connect
from benchmarks.subject.tasks import hold_once
from benchmarks.waiting import DEADLINE_S, TookTooLong, wait_until

NAME = "recovery"
TITLE = "Recovery of the task of a worker that was killed"
DATABASE = "recovery"
WORKERS = 4
HOLD_S = 60.0
POLL_S = 0.0005

_HOLDER: LiteralString = """
    select worker.pid from task_runs as run join reproq_workers as worker on worker.id = run.leased_by
    where run.id = %s and run.status = 'RUNNING'
"""
_STATE: LiteralString = "select status, claims from task_runs where id = %s"
_LIVE_WORKERS: LiteralString = "select count(*) from reproq_workers where lease_expires_at > now()"


@dataclass(frozen=True)
class Recovery:
    pending_ms: float
    running_ms: float


def tables(bench: Bench) -> tuple[Table, ...]:
    url = new_queue(bench.server.url, DATABASE)
    found: dict[str, list[Recovery]] = defaultdict(list)
    installations = (INLINE, FORK)
    for _ in range(bench.rounds):
        for installation in installations:
            found[installation.name] += _kills(url, installation, bench.sizes.kills)
    series = []
    for installation in installations:
        recoveries = found[installation.name]
        configuration = f"{WORKERS} workers, default settings, {len(recoveries)} kills"
        series += [
            Series(
                f"reproq-prefork {installation.name}, death to PENDING",
                configuration,
                tuple(recovery.pending_ms for recovery in recoveries),
                is_ours=True,
            ),
            Series(
                f"reproq-prefork {installation.name}, death to running again",
                configuration,
                tuple(recovery.running_ms for recovery in recoveries),
                is_ours=True,
            ),
        ]
    stated = tuple(
        f"{peer.name}: {peer.recovery} (documented, not measured)." for peer in PEERS if peer.recovery
    )
    return (Table(TITLE, "ms", Shape.TIMES, tuple(series), stated),)


def _kills(url: str, installation: Installation, kills: int) -> list[Recovery]:
    with connect(url) as connection, supervisor(url, installation, workers=WORKERS):
        recoveries = []
        for _ in range(kills):
            # The replacement of the worker that was killed before must not boot beside this.
            wait_until(lambda: _live_workers(connection) == WORKERS, "the start of the workers")
            recoveries.append(_kill(connection))
        return recoveries


def _kill(connection: Connection) -> Recovery:
    run = hold_once.enqueue(connection, HOLD_S)
    wait_until(lambda: _holder(connection, run.id) is not None, "the start of the task", pause_s=0.01)
    pid = _holder(connection, run.id)
    assert pid is not None
    _, first_claim = _state(connection, run.id)
    time.sleep(0.05)  # it is claimed; now it also runs
    os.kill(pid, signal.SIGKILL)
    killed_at = time.monotonic()
    pending_ms: float | None = None
    while time.monotonic() < killed_at + DEADLINE_S:
        status, claim = _state(connection, run.id)
        seen_ms = (time.monotonic() - killed_at) * 1000
        if pending_ms is None and (status == "PENDING" or claim > first_claim):
            pending_ms = seen_ms
        if claim > first_claim:
            assert pending_ms is not None
            return Recovery(pending_ms, seen_ms)
        time.sleep(POLL_S)
    raise TookTooLong("the recovery", DEADLINE_S)


def _holder(connection: Connection, run_id: int) -> int | None:
    row = connection.execute(_HOLDER, [run_id]).fetchone()
    return None if row is None else int(row[0])


def _state(connection: Connection, run_id: int) -> tuple[str, int]:
    row = connection.execute(_STATE, [run_id]).fetchone()
    assert row is not None
    return row[0], row[1]


def _live_workers(connection: Connection) -> int:
    row = connection.execute(_LIVE_WORKERS).fetchone()
    assert row is not None
    return int(row[0])
