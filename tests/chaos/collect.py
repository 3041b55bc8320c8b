"""What a storm has left behind, read from its logs and from the table, as one history."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.chaos.arena import Arena, boottime
from tests.chaos.history import Answer, Edge, Fault, History, Moment, Page, Row, Told
from tests.supervisor import Connection

MAX_CLOCK_SHIFT_S = 0.02


class ClockWasSet(Exception):
    """The wall clock was set during the storm, so the server's times cannot be compared with the others."""


def wall_clock_offset_s() -> float:
    """What to add to CLOCK_BOOTTIME to have the wall clock, by which the server notes its times."""
    return time.time() - boottime()


def history(
    arena: Arena, faults: Sequence[Fault], *, healed_at: float, offset_s: float, leftovers: Sequence[str]
) -> History:
    """`offset_s`: of the clocks, as it was at the start. Raises ClockWasSet."""
    shift_s = abs(wall_clock_offset_s() - offset_s)
    if shift_s > MAX_CLOCK_SHIFT_S:
        raise ClockWasSet(f"the wall clock moved by {shift_s:.3f} s during the storm: run it again")
    with arena.connect() as connection:
        return History(
            told=tuple(told for path in arena.told for told in _told(path)),
            pages=tuple(_pages(arena.diary)),
            edges=tuple(_edges(connection, offset_s)),
            rows=tuple(_rows(connection)),
            faults=faults,
            healed_at=healed_at,
            leftovers=leftovers,
        )


def _told(path: Path) -> Iterator[Told]:
    for line in path.read_text().splitlines():
        first, count, answer, at = line.split()
        for number in range(int(first), int(first) + int(count)):
            yield Told(number, Answer[answer], float(at))


def _pages(path: Path) -> Iterator[Page]:
    moments = {moment.value: moment for moment in Moment}
    with path.open() as lines:
        for line in lines:
            moment, run_id, claim, pid, parent, host, at = line.split()
            yield Page(moments[moment], int(run_id), int(claim), int(pid), float(at), int(parent), host)


def _edges(connection: Connection, offset_s: float) -> Iterator[Edge]:
    for run_id, old, new, claim, kind, at in connection.execute(
        "select run_id, old_status, new_status, claims, coalesce(error_kind, ''),"
        " extract(epoch from at)::float8 from audit"
    ):
        yield Edge(run_id, old, new, claim, at - offset_s, kind)


def _rows(connection: Connection) -> Iterator[Row]:
    for run_id, number, status, attempts, max_attempts, claims in connection.execute(
        "select id, coalesce(payload #>> '{args,0}', payload ->> 'number')::bigint, status, attempts,"
        " max_attempts, claims from task_runs"
    ):
        yield Row(run_id, number, status, attempts, max_attempts, claims)
