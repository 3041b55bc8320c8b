"""What a claim costs in the cases that kill queues, and how a drain fares that lasts, or meets an old snapshot."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

from benchmarks import bare_loops
from benchmarks.bench import Bench
from benchmarks.figures import Series, Shape, Table
from benchmarks.interleaved import Contender, interleaved
from benchmarks.servers import drop_database, new_queue
from benchmarks.subject.installation import INLINE, supervisor
from benchmarks.subject.queue import Connection, connect, fill, wait_until_drained
from reproq_prefork.store.statements import statement

NAME = "scale"
CLAIM = "Claim: the statement alone, without its commit"
SUSTAINED = "Sustained drain"
BLOAT = "Drain under an old snapshot"
PENDING_1K = "1k pending"
PENDING_5M = "5M pending"
FIRST = "the first tenth"
LAST = "the last tenth"
WHOLE = "the whole"
WORKERS = 2
BLOAT_RUNS = 20_000
WARM_UP_CLAIMS = 10
FEWEST_ROWS = 1_000


@dataclass(frozen=True)
class Part:
    rows: int
    queue: str = "default"
    priority: int = 0
    status: str = "PENDING"
    delay_s: float | None = None


@dataclass(frozen=True)
class Backlog:
    """A table to claim from: rows of it, in the order in which they are added."""

    name: str
    database: str
    parts: tuple[Part, ...]
    queues: str = "default"


# Triggers are off and secondary indexes are made afterwards: ten million rows take a minute then.
_INDEXES: LiteralString = """
    select indexname, indexdef from pg_indexes
    where schemaname = 'public' and tablename = 'task_runs' and indexname <> 'task_runs_pkey'
"""
_ROWS: LiteralString = """
    insert into task_runs (
        payload, spec_hash, queue_name, priority, status, run_after, enqueued_at, attempts, claims, worker_ids,
        started_at, last_attempted_at, finished_at, result
    )
    select
        canonical::jsonb, encode(sha256(canonical::bytea), 'hex'), %(queue)s, %(priority)s, %(status)s,
        now() + make_interval(secs => %(delay_s)s::float8), clock_timestamp() - interval '1 hour',
        done, done, case when done = 1 then array['worker-1'] else '{}'::text[] end,
        ended, ended, ended, case when done = 1 then 'null'::jsonb end
    from generate_series(1, %(rows)s) as number,
    lateral (
        select
            format('{"args":[%%s],"kwargs":{},"task":"bench.no_op","v":1}', number) as canonical,
            case when %(status)s = 'PENDING' then 0 else 1 end as done,
            case when %(status)s <> 'PENDING' then now() end as ended
    ) as made
"""


def backlogs(bench: Bench) -> tuple[Backlog, ...]:
    of = bench.sizes.backlog_share

    def some(rows: int) -> int:
        return max(FEWEST_ROWS, int(rows * of))

    due = Part(some(100_000))
    return (
        Backlog(PENDING_1K, "claim_1k", (Part(some(1_000)),)),
        Backlog("100k pending", "claim_100k", (due,)),
        Backlog("1M pending", "claim_1m", (Part(some(1_000_000)),)),
        Backlog(PENDING_5M, "claim_5m", (Part(some(5_000_000)),)),
        Backlog(
            "three queues of 100k",
            "claim_queues",
            tuple(Part(some(100_000), queue=queue) for queue in ("a", "b", "c")),
            "a,b,c",
        ),
        Backlog(
            "100k pending, 1M for tomorrow",
            "claim_later",
            (due, Part(some(1_000_000), delay_s=86_400.0)),
        ),
        Backlog(
            "100k pending, 1M of a higher priority for tomorrow",
            "claim_later_higher",
            (due, Part(some(1_000_000), priority=10, delay_s=86_400.0)),
        ),
        Backlog(
            f"100k pending, {bench.sizes.finished_rows / 1e6:g}M finished",
            "claim_finished",
            (Part(bench.sizes.finished_rows, status="SUCCESSFUL"), due),
        ),
    )


def tables(bench: Bench) -> tuple[Table, ...]:
    return (_claims(bench), *_drains(bench))


def _claims(bench: Bench) -> Table:
    made = backlogs(bench)
    try:
        series = interleaved([_claimer(bench, backlog) for backlog in made], bench.rounds)
    finally:
        for backlog in made:
            drop_database(bench.server.url, backlog.database)
    notes = (
        "One worker, one run a claim, and the one before is finished by the same statement; timed by the client.",
        "Rows were put in with triggers off, and analyzed; each round claims from where the last one ended.",
    )
    return Table(CLAIM, "ms", Shape.TIMES, series, notes)


def _claimer(bench: Bench, backlog: Backlog) -> Contender:
    url = new_queue(bench.server.url, backlog.database)
    bare_loops.register(url)
    with connect(url) as connection:
        _fill(connection, backlog.parts)
    # No round may find the smallest table empty.
    claims = min(bench.sizes.claims, FEWEST_ROWS // bench.rounds - WARM_UP_CLAIMS - 1)
    rows = " + ".join(f"{part.rows:,} {part.status}" for part in backlog.parts)
    return Contender(backlog.name, rows, lambda: _claim_times_ms(url, backlog, claims), is_ours=True)


def _fill(connection: Connection, parts: Sequence[Part]) -> None:
    indexes = connection.execute(_INDEXES).fetchall()
    for name, _ in indexes:
        connection.execute(f"drop index {name}".encode())
    connection.execute("set session_replication_role = replica")
    for part in parts:
        connection.execute(_ROWS, vars(part))
    for _, definition in indexes:
        connection.execute(definition.encode())
    connection.execute("vacuum analyze task_runs")


def _claim_times_ms(url: str, backlog: Backlog, claims: int) -> Sequence[float]:
    text: Any = statement(bare_loops.FINISH_AND_CLAIM)
    fixed = {**bare_loops.FIXED, "places": bare_loops.from_the_head(backlog.queues.split(","))}
    ended = bare_loops.NOTHING_ENDED
    times = []
    with bare_loops.prepared(url) as connection:
        connection.autocommit = False
        cursor = connection.cursor()
        for number in range(WARM_UP_CLAIMS + claims):
            parameters = {**fixed, "max_runs": 1, "settlements": ended}
            began = time.perf_counter()
            rows = cursor.execute(text, parameters).fetchall()
            took_s = time.perf_counter() - began
            connection.commit()
            if rows[0][0] is None:
                raise RuntimeError(f"nothing was claimed from the table with {backlog.name}")
            ended = bare_loops.settlements(rows)
            if number >= WARM_UP_CLAIMS:
                times.append(took_s * 1000)
        # What is held is finished, so that the next round finds no old holder.
        cursor.execute(text, {**fixed, "max_runs": 0, "settlements": ended})
        connection.commit()
    return times


_RATES_BY_TENTH: LiteralString = """
    select
        min(place),
        count(*) / extract(epoch from max(finished_at) - min(finished_at))::float8
    from (
        select finished_at, ntile(10) over (order by finished_at) as place from task_runs
    ) as run
    group by place
    order by place
"""


def _drains(bench: Bench) -> tuple[Table, ...]:
    url = new_queue(bench.server.url, NAME)
    rates = _sustained(url, bench.sizes.sustained_runs)
    configuration = f"inline, {WORKERS} workers; {bench.sizes.sustained_runs:,} tasks, one drain"
    sustained = Table(
        SUSTAINED,
        "tasks/s",
        Shape.RATE,
        (
            Series(FIRST, configuration, (rates[0],), is_ours=True),
            Series("the middle eight tenths", configuration, tuple(rates[1:-1]), is_ours=True),
            Series(LAST, configuration, (rates[-1],), is_ours=True),
            Series(WHOLE, configuration, (statistics.harmonic_mean(rates),), is_ours=True),
        ),
        ("Rates of each tenth of one drain, by when its tasks ended.",),
    )
    runs = min(BLOAT_RUNS, bench.sizes.inline_runs)
    bloat = interleaved(
        [
            Contender(
                name, f"inline, {WORKERS} workers; {runs:,} tasks", _bloated(url, runs, old), is_ours=True
            )
            for name, old in (("without", False), ("with a snapshot from before the drain", True))
        ],
        bench.rounds,
    )
    return sustained, Table(BLOAT, "tasks/s", Shape.RATE, bloat)


def _sustained(url: str, runs: int) -> Sequence[float]:
    with connect(url) as connection:
        fill(connection, INLINE, runs)
        with supervisor(url, INLINE, workers=WORKERS):
            wait_until_drained(connection, runs, deadline_s=1_800.0)
        return [rate for _, rate in connection.execute(_RATES_BY_TENTH).fetchall()]


def _bloated(url: str, runs: int, has_old_snapshot: bool) -> Callable[[], Sequence[float]]:
    def measure() -> Sequence[float]:
        with connect(url) as connection, connect(url) as other:
            fill(connection, INLINE, runs)
            if has_old_snapshot:
                other.execute("begin isolation level repeatable read")
                other.execute("select count(*) from reproq_workers")
            with supervisor(url, INLINE, workers=WORKERS):
                rate = wait_until_drained(connection, runs).per_s
            if has_old_snapshot:
                other.execute("rollback")
            return [rate]

    return measure
