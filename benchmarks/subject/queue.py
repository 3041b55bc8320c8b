"""Our table, as a measurement fills and reads it. All times are the server's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg

from benchmarks.subject.installation import Installation
from benchmarks.waiting import DEADLINE_S, wait_until

Connection = psycopg.Connection[tuple[Any, ...]]

POLL_S = 0.05

# What the API would insert: the hash is that of the canonical payload.
_FILL: LiteralString = """
    insert into task_runs (payload, spec_hash, max_attempts)
    select canonical::jsonb, encode(sha256(canonical::bytea), 'hex'), %(max_attempts)s
    from generate_series(1, %(runs)s) as number,
    lateral (
        select case
            when %(task)s = '' then format('{"n":%%s}', number)
            else format('{"args":[%%s],"kwargs":{},"task":"%%s","v":1}', number, %(task)s)
        end as canonical
    ) as document
"""
_UNFINISHED: LiteralString = "select exists (select from task_runs where status in ('PENDING', 'RUNNING'))"
_SPAN: LiteralString = """
    select
        count(*) filter (where status = 'SUCCESSFUL'),
        extract(epoch from max(finished_at) - min(started_at))::float8
    from task_runs
"""


class TasksMissing(RuntimeError):
    def __init__(self, done: int, expected: int) -> None:
        super().__init__(f"{done} tasks of {expected} are recorded as done")


@dataclass(frozen=True)
class Drain:
    done: int
    seconds: float

    @property
    def per_s(self) -> float:
        return self.done / self.seconds


def connect(url: str) -> Connection:
    return psycopg.connect(url, autocommit=True)


def fill(connection: Connection, installation: Installation, runs: int) -> None:
    """An empty table, then `runs` runs of the installation's task, or of a payload for its program."""
    connection.execute("truncate task_runs")
    parameters = {"task": installation.task, "max_attempts": installation.max_attempts, "runs": runs}
    connection.execute(_FILL, parameters)
    connection.execute("vacuum analyze task_runs")


def wait_until_drained(connection: Connection, runs: int, *, deadline_s: float = DEADLINE_S) -> Drain:
    """From the first start to the last end, once there is nothing more to do. Raises TasksMissing."""
    wait_until(lambda: not _is_unfinished(connection), "the drain", pause_s=POLL_S, deadline_s=deadline_s)
    row = connection.execute(_SPAN).fetchone()
    assert row is not None
    drain = Drain(*row)
    if drain.done != runs:
        raise TasksMissing(drain.done, runs)
    return drain


def _is_unfinished(connection: Connection) -> bool:
    row = connection.execute(_UNFINISHED).fetchone()
    assert row is not None
    return bool(row[0])
