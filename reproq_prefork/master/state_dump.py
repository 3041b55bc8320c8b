"""What SIGUSR1 writes to the log: each process, what it does, since when, and how much of its lease is left."""

from __future__ import annotations

from collections.abc import Iterator

from reproq_prefork.fleet.state import Fleet, FleetTemplate, FleetWorker
from reproq_prefork.unix.scoreboard import Scoreboard


def state_dump(fleet: Fleet, scoreboard: Scoreboard, now_ns: int) -> Iterator[str]:
    """The lines of the dump. `now_ns` is CLOCK_BOOTTIME."""
    quiet = ", quiet" if fleet.quiet else ""
    yield (
        f"state: {fleet.phase.name.lower()}{quiet}, reload {fleet.reload.name.lower()},"
        f" {len(fleet.workers)} of {fleet.max_slots} slots in use"
    )
    for generation in fleet.generations.values():
        draining = ", draining" if generation.draining else ""
        yield (
            f"generation {generation.number}: {generation.target} workers wanted{draining},"
            f" {len(generation.lost_with_orphans) + len(generation.lost)} dead workers to be reset,"
            f" steward {_steward(scoreboard, generation.number, now_ns)}"
        )
        if generation.template is not None:
            yield f"  template {_template(generation.template, now_ns)}"
        for worker in sorted(fleet.workers_of(generation.number), key=lambda worker: worker.slot):
            pid = f"(pid {worker.pid})" if worker.pid else "(being forked)"
            yield f"  worker {worker.slot} {pid}: {_worker(scoreboard, worker, now_ns)}"


def _steward(scoreboard: Scoreboard, generation: int, now_ns: int) -> str:
    record = scoreboard.read_steward(scoreboard.steward_place(generation))
    if record is None or not record.pid:
        return "not up yet"
    connected = "connected" if record.connected else "without a connection"
    return f"pid {record.pid}, {connected}, seen {_seconds(now_ns - record.heartbeat_ns)} ago"


def _template(template: FleetTemplate, now_ns: int) -> str:
    if not template.pid:
        return "not up yet"
    if template.told:
        state = "being ended"
    elif template.ready:
        state = "ready"
    else:
        state = "importing the application"
    return f"(pid {template.pid}): {state}, forked {_seconds(now_ns - int(template.forked_at * 1e9))} ago"


def _worker(scoreboard: Scoreboard, worker: FleetWorker, now_ns: int) -> str:
    record = scoreboard.read_worker(worker.slot)
    if record is None or record.incarnation != worker.incarnation:
        return "booting"
    parts = [record.state.name.lower()]
    if record.run_id:
        parts.append(
            f"run {record.run_id} attempt {record.attempt} for {_seconds(now_ns - record.started_ns)}"
        )
    if record.deadline_ns:
        parts.append(f"deadline in {_seconds(record.deadline_ns - now_ns)}")
    parts.append(
        f"lease for {_seconds(scoreboard.lease_end_ns(worker.slot, record) - now_ns)}"
        if record.is_registered
        else "no lease"
    )
    parts.append(f"{record.tasks_done} done")
    parts.append(f"{record.rss_kib // 1024} MiB")
    return ", ".join(parts)


def _seconds(ns: int) -> str:
    return f"{ns / 1e9:.1f} s"
