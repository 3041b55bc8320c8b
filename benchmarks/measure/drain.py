"""No-op tasks that are already in the queue, to the recording of the last one: the highest rate of each system."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from benchmarks.bench import Bench
from benchmarks.figures import Shape, Table
from benchmarks.interleaved import Contender, interleaved
from benchmarks.measure import limit
from benchmarks.peers.lifecycle import InstalledPeer
from benchmarks.peers.selection import installed_peers
from benchmarks.servers import new_queue
from benchmarks.subject.installation import (
    COMMAND,
    FORK,
    FORK_DJANGO,
    INLINE,
    INLINE_DJANGO,
    INLINE_SINGLE,
    Installation,
    supervisor,
)
from benchmarks.subject.queue import connect, fill, wait_until_drained

NAME = "drain"
TITLE = "Drain: no-op tasks that are already in the queue"
DATABASE = "drain"
DEFAULT_WORKERS = 2  # what an installation has on two cores, and what the peers are compared with

NOTES = (
    "From the first start to the last recorded completion, by the server's clock.",
    "The limit: our own statement, sent by pgbench and by a bare psycopg loop, same server, same run.",
)


def ours(installation: Installation, workers: int) -> str:
    """The name of a line."""
    return f"reproq-prefork {installation.name}, {workers} worker{'' if workers == 1 else 's'}"


def tables(bench: Bench) -> tuple[Table, ...]:
    with ExitStack() as stack:
        url = new_queue(bench.server.url, DATABASE)
        contenders = [
            *_ours(bench, url),
            *limit.contenders(bench, bench.sizes.workers),
            *(_peer(installed, bench) for installed in installed_peers(bench, stack)),
        ]
        series = interleaved(contenders, bench.rounds)
    return (Table(TITLE, "tasks/s", Shape.RATE, series, NOTES),)


def _ours(bench: Bench, url: str) -> list[Contender]:
    sizes = bench.sizes
    made = []
    django = (DEFAULT_WORKERS,) if sizes.with_django else ()
    for installation, runs, worker_counts in (
        (INLINE, sizes.inline_runs, sizes.workers),
        (INLINE_SINGLE, sizes.single_runs, (DEFAULT_WORKERS,)),
        (FORK, sizes.fork_runs, sizes.workers),
        (COMMAND, sizes.command_runs, sizes.workers),
        (INLINE_DJANGO, sizes.inline_runs, django),
        (FORK_DJANGO, sizes.fork_runs, django),
    ):
        for workers in worker_counts:
            made.append(  # noqa: PERF401
                Contender(
                    ours(installation, workers),
                    f"default settings; {runs:,} tasks",
                    _measured(url, installation, workers, runs),
                    is_ours=True,
                )
            )
    return made


def _measured(url: str, installation: Installation, workers: int, runs: int) -> Callable[[], Sequence[float]]:
    def measure() -> Sequence[float]:
        with connect(url) as connection:
            fill(connection, installation, runs)
            with supervisor(url, installation, workers=workers):
                return [wait_until_drained(connection, runs).per_s]

    return measure


def _peer(installed: InstalledPeer, bench: Bench) -> Contender:
    peer = installed.peer
    runs = max(100, int(peer.runs * bench.sizes.peer_share))
    return Contender(
        f"{peer.name} {installed.environment.version}",
        f"{peer.configuration}; {runs:,} tasks",
        lambda: [installed.drain(runs).per_s],
    )
