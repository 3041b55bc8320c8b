"""What an installation costs: memory of each process with Django loaded, an idle host, commits and WAL."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import LiteralString

from benchmarks.bench import Bench
from benchmarks.figures import Series, Shape, Table
from benchmarks.process_tree import cpu_s, named_processes, pss_mib
from benchmarks.servers import new_queue
from benchmarks.subject.installation import FORK, INLINE, INLINE_DJANGO, Installation, supervisor
from benchmarks.subject.queue import Connection, connect, fill, wait_until_drained
from benchmarks.waiting import wait_until

NAME = "cost"
MEMORY = "Memory (PSS) with Django loaded"
IDLE = "An idle host with 16 workers"
WRITES = "What a task writes"
ONE_MORE_WORKER = "each further worker"
IDLE_CPU = "CPU, % of a core"
IDLE_SERVER_CPU = "CPU of their server processes, % of a core"
IDLE_COMMITS = "transactions a second"
DATABASE = "cost"
UNUSED = "cost_unused"
LATE_STATISTICS_S = 15.0  # the server process of an idle client may count what it has done ten seconds later
FEW_WORKERS, MANY_WORKERS, IDLE_WORKERS = 2, 10, 16
WORKERS = 2
SETTLE_S = 3.0  # after the start: caches fill, the first polls and leases are done
STATISTICS_S = 1.5  # after the last transaction: until the server has counted it
MOST_ROUNDS = 3  # these hardly vary

# Read from another database, so that reading is not counted.
_COMMITS: LiteralString = "select xact_commit + xact_rollback from pg_stat_database where datname = %s"
_WAL: LiteralString = "select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint"
_BACKENDS: LiteralString = """
    select pid from pg_stat_activity where datname = %s and application_name like 'reproq-prefork %%'
"""
_REGISTERED: LiteralString = "select count(*) from reproq_workers"


@dataclass(frozen=True)
class Line:
    name: str
    configuration: str


def tables(bench: Bench) -> tuple[Table, ...]:
    url = new_queue(bench.server.url, DATABASE)
    rounds = min(MOST_ROUNDS, bench.rounds)
    return (
        Table(
            MEMORY,
            "MiB",
            Shape.COST,
            _sampled(
                (
                    Line("master", f"of an installation of {FEW_WORKERS} workers"),
                    Line("steward", "the same"),
                    Line("worker", "the same, one of them"),
                    Line("all", "the same, every process of it"),
                    Line(
                        ONE_MORE_WORKER,
                        f"all with {MANY_WORKERS} workers less all with {FEW_WORKERS}, a worker",
                    ),
                ),
                lambda: _memory(url),
                rounds,
            ),
            ("Proportional set size: memory that n processes share counts 1/n for each.",),
        ),
        Table(
            IDLE,
            "",
            Shape.COST,
            _sampled(
                (
                    Line(IDLE_CPU, "master, steward and workers"),
                    Line(IDLE_SERVER_CPU, "PostgreSQL's side of it"),
                    Line(IDLE_COMMITS, "as the server counts them, less its own; a statement each"),
                ),
                lambda: _idle(bench, url),
                1,
            ),
            (f"Default settings, Django tasks, over {bench.sizes.idle_s:g} s.",),
        ),
        Table(
            WRITES,
            "",
            Shape.COST,
            tuple(
                series
                for installation, runs in (
                    (INLINE, bench.sizes.inline_runs // 5),
                    (FORK, bench.sizes.fork_runs // 2),
                )
                for series in _sampled(
                    (
                        Line(f"commits a task, {installation.name}", f"{runs:,} tasks, {WORKERS} workers"),
                        Line(f"WAL bytes a task, {installation.name}", f"{runs:,} tasks, {WORKERS} workers"),
                    ),
                    _writes_of(bench, url, installation, runs),
                    rounds,
                )
            ),
            ("From the start of the installation to the end of the drain.",),
        ),
    )


def _sampled(
    lines: tuple[Line, ...], measure: Callable[[], Mapping[str, float]], rounds: int
) -> tuple[Series, ...]:
    """A measurement that gives one value for each line at once."""
    values: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        measured = measure()
        for line in lines:
            values[line.name].append(measured[line.name])
    return tuple(
        Series(line.name, line.configuration, tuple(values[line.name]), is_ours=True) for line in lines
    )


def _memory(url: str) -> Mapping[str, float]:
    few, many = _pss_by_role(url, FEW_WORKERS), _pss_by_role(url, MANY_WORKERS)
    return {**few, ONE_MORE_WORKER: (many["all"] - few["all"]) / (MANY_WORKERS - FEW_WORKERS)}


def _pss_by_role(url: str, workers: int) -> dict[str, float]:
    """The mean of each role, and `all` together, in MiB."""
    with connect(url) as connection, supervisor(url, INLINE_DJANGO, workers=workers) as master:
        _wait_until_up(connection, workers)
        found: dict[str, list[float]] = defaultdict(list)
        for process in named_processes(master.pid):
            found[process.role].append(pss_mib(process.pid))
    means = {role: sum(values) / len(values) for role, values in found.items()}
    return {**means, "all": sum(sum(values) for values in found.values())}


def _idle(bench: Bench, url: str) -> Mapping[str, float]:
    seconds = bench.sizes.idle_s
    new_queue(bench.server.url, UNUSED)
    with connect(bench.server.url) as server, supervisor(url, INLINE_DJANGO, workers=IDLE_WORKERS) as master:
        with connect(url) as connection:
            _wait_until_up(connection, IDLE_WORKERS)
        time.sleep(LATE_STATISTICS_S)
        processes = [process.pid for process in named_processes(master.pid)]
        backends = [pid for (pid,) in server.execute(_BACKENDS, [DATABASE]).fetchall()]
        commits, began = _commits_of_ours(server), time.monotonic()
        own, servers = sum(map(cpu_s, processes)), sum(map(cpu_s, backends))
        time.sleep(seconds)
        took = time.monotonic() - began
        return {
            IDLE_CPU: 100 * (sum(map(cpu_s, processes)) - own) / took,
            IDLE_SERVER_CPU: 100 * (sum(map(cpu_s, backends)) - servers) / took,
            IDLE_COMMITS: (_commits_of_ours(server) - commits) / took,
        }


def _commits_of_ours(server: Connection) -> float:
    """Less the server's own ones, such as autovacuum's, which it makes in a database that nobody uses, too."""
    return _number(server, _COMMITS, DATABASE) - _number(server, _COMMITS, UNUSED)


def _writes_of(
    bench: Bench, url: str, installation: Installation, runs: int
) -> Callable[[], Mapping[str, float]]:
    def measure() -> Mapping[str, float]:
        with connect(bench.server.url) as server:
            with connect(url) as connection:
                fill(connection, installation, runs)
            time.sleep(STATISTICS_S)
            commits, wal = _number(server, _COMMITS, DATABASE), _number(server, _WAL)
            with connect(url) as connection, supervisor(url, installation, workers=WORKERS):
                wait_until_drained(connection, runs)
            time.sleep(STATISTICS_S)
            return {
                f"commits a task, {installation.name}": (_number(server, _COMMITS, DATABASE) - commits)
                / runs,
                f"WAL bytes a task, {installation.name}": (_number(server, _WAL) - wal) / runs,
            }

    return measure


def _wait_until_up(connection: Connection, workers: int) -> None:
    wait_until(lambda: _number(connection, _REGISTERED) == workers, f"the start of {workers} workers")
    time.sleep(SETTLE_S)


def _number(connection: Connection, query: LiteralString, *parameters: str) -> float:
    row = connection.execute(query, parameters or None).fetchone()
    assert row is not None
    return float(row[0])
