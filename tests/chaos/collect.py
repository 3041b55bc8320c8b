"""What a storm has left behind, read from its logs and from the table, as one history."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from psycopg.rows import namedtuple_row

from tests.chaos.arena import Arena
from tests.chaos.clock import boottime
from tests.chaos.history import (
    Answer,
    Cancel,
    Edge,
    Effect,
    Fault,
    History,
    KeyAnswer,
    Moment,
    Page,
    Row,
    Told,
)
from tests.chaos.hosts import host_of
from tests.chaos.load import SITE
from tests.support.supervisor.supervisor import Connection

MAX_CLOCK_SHIFT_S = 0.02
ROWS = """
    select
        id, status, attempts, max_attempts, claims, task_path, executor, atomic,
        coalesce(payload #>> '{args,0}', payload ->> 'number')::bigint as number,
        coalesce(payload #>> '{kwargs,after_s}', payload ->> 'after_s')::float8 as after_s,
        coalesce(task_path like '%.hoarding' or payload ->> 'doing' = 'hoard', false) as hoards,
        case when errors = '[]' then 0 else jsonb_array_length(jsonb_path_query_array(
            errors, '$[*] ? (@.exception == "MemoryError" || @.message like_regex "MemoryError")'
        )) end as memory_errors,
        unique_key, extract(epoch from added.at)::float8 as added_at
    from task_runs
    left join added on added.run_id = task_runs.id
"""


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
    told = tuple(each for path in arena.logs("told") for each in _told(path))
    odd = {each.number for each in told if each.is_odd}
    with arena.connect() as connection:
        return History(
            told=told,
            pages=tuple(_pages(arena.diary)),
            edges=tuple(_edges(connection, offset_s)),
            rows=tuple(_rows(connection, offset_s, odd)),
            faults=faults,
            healed_at=healed_at,
            leftovers=leftovers,
            key_answers=tuple(each for path in arena.logs("keys") for each in _key_answers(path)),
            cancels=tuple(each for path in arena.logs("cancels") for each in _cancels(path)),
            effects=tuple(Effect(*row) for row in connection.execute("select run_id, claim from effects")),
        )


def _told(path: Path) -> Iterator[Told]:
    for line in path.read_text().splitlines():
        first, count, answer, at, odd = line.split()
        for number in range(int(first), int(first) + int(count)):
            yield Told(number, Answer[answer], float(at), odd == "odd")


def _key_answers(path: Path) -> Iterator[KeyAnswer]:
    for line in path.read_text().splitlines():
        number, key, run_id, created, sent_at, at = line.split()
        yield KeyAnswer(int(number), key, int(run_id), bool(int(created)), float(sent_at), float(at))


def _cancels(path: Path) -> Iterator[Cancel]:
    for line in path.read_text().splitlines():
        run_id, sent_at, at, answer = line.split()
        yield Cancel(int(run_id), float(sent_at), float(at), answer)


def _pages(path: Path) -> Iterator[Page]:
    moments = {moment.value: moment for moment in Moment}
    with path.open() as lines:
        for line in lines:
            moment, run_id, claim, pid, parent, host, at = line.split()
            yield Page(moments[moment], int(run_id), int(claim), int(pid), float(at), int(parent), host)


def _edges(connection: Connection, offset_s: float) -> Iterator[Edge]:
    for run_id, old, new, claim, kind, holder, at in connection.execute(
        "select run_id, old_status, new_status, claims, coalesce(error_kind, ''), coalesce(leased_by, ''),"
        " extract(epoch from at)::float8 from audit"
    ):
        yield Edge(run_id, old, new, claim, at - offset_s, kind, host_of(holder))


def _rows(connection: Connection, offset_s: float, odd: Collection[int]) -> Iterator[Row]:
    works: dict[tuple[str | None, str | None, bool], str] = {}
    with connection.cursor(row_factory=namedtuple_row) as cursor:
        row: Any
        for row in cursor.execute(ROWS):
            which = row.task_path, row.executor, row.atomic
            work = works.setdefault(which, _work(*which))
            yield Row(
                run_id=row.id,
                number=row.number,
                status=row.status,
                attempts=row.attempts,
                max_attempts=row.max_attempts,
                claims=row.claims,
                work="odd row" if row.number in odd else work,
                key=row.unique_key,
                added_at=None if row.added_at is None else row.added_at - offset_s,
                retry_after_s=row.after_s,
                is_atomic=row.atomic,
                is_odd=row.number in odd,
                hoards=row.hoards,
                memory_errors=row.memory_errors,
            )


def _work(task_path: str | None, executor: str | None, atomic: bool) -> str:
    if task_path is None:
        return "program"
    part = "site" if task_path.startswith(SITE) else "function"
    return f"{part}, {'atomic, ' if atomic else ''}{executor}"
