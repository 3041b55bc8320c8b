"""An idle queue, and a task each 50 ms: how soon its body starts.

There are two clocks, and so two tables. A peer's API commits by itself, so with peers the clock starts at the
call that enqueues. Ours may be called inside a transaction, so beside bare loops it starts when COMMIT is sent.
Not when it returns: the server wakes the listeners before it answers the producer, and a listener is often the
quicker one.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from benchmarks import bare_loops
from benchmarks.bench import Bench
from benchmarks.figures import Series, Shape, Table
from benchmarks.interleaved import Contender, interleaved
from benchmarks.peers.lifecycle import InstalledPeer
from benchmarks.peers.selection import installed_peers
from benchmarks.servers import new_queue
from benchmarks.subject.installation import FORK, INLINE, Installation, supervisor
from benchmarks.subject.queue import Connection, connect
from benchmarks.subject.tasks import STARTS_FILE, note
from benchmarks.waiting import wait_until

NAME = "pick-up"
FROM_COMMIT = "Pick-up, from COMMIT to the start of the body"
FROM_CALL = "Pick-up, from the call that enqueues to the start of the body"
LISTEN_ALONE = "bare psycopg LISTEN loop"
LISTEN_AND_CLAIM = "bare psycopg LISTEN loop that claims"
DATABASE = "pick_up"
PAUSE_S = 0.05
POLLED_PICK_UPS = 20  # of a peer that polls: its median says it all
WORKERS = 2


@dataclass(frozen=True)
class Recorder:
    """The measured values of the second clock, for those that have two."""

    values: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))


def ours(installation: Installation) -> str:
    return f"reproq-prefork {installation.name}"


def tables(bench: Bench) -> tuple[Table, ...]:
    recorder = Recorder()
    with ExitStack() as stack:
        url = new_queue(bench.server.url, DATABASE)
        bare_loops.register(url)
        own = [
            *(_of_us(bench, url, installation, recorder) for installation in (INLINE, FORK)),
            _of_a_loop(bench, url, LISTEN_ALONE, "LISTEN, nothing else", bare_loops.listen, recorder),
            _of_a_loop(
                bench, url, LISTEN_AND_CLAIM, "finish_and_claim.sql", bare_loops.listen_and_claim, recorder
            ),
        ]
        peers = [_of_a_peer(bench, installed) for installed in installed_peers(bench, stack)]
        series = interleaved([*own, *peers], bench.rounds)
    note_ = "One task each 50 ms into an empty queue; 2 workers, or as the peer is configured."
    return (
        Table(FROM_COMMIT, "ms", Shape.TIMES, series[: len(own)], (note_,)),
        Table(
            FROM_CALL,
            "ms",
            Shape.TIMES,
            (*(_from_call(one, recorder) for one in series[: len(own)] if one.is_ours), *series[len(own) :]),
            (note_,),
        ),
    )


def _from_call(series: Series, recorder: Recorder) -> Series:
    values = tuple(recorder.values[series.name])
    return Series(series.name, series.configuration, values, series.is_ours, series.failure)


def _of_us(bench: Bench, url: str, installation: Installation, recorder: Recorder) -> Contender:
    name = ours(installation)
    starts = bench.scratch / f"pick_up_{installation.name}"

    def working() -> AbstractContextManager[object]:
        return supervisor(url, installation, workers=WORKERS, environ={STARTS_FILE: str(starts)})

    return Contender(
        name,
        "default settings",
        lambda: _measured(url, bench.sizes.pick_ups, starts, working, recorder.values[name]),
        is_ours=True,
    )


def _of_a_loop(
    bench: Bench,
    url: str,
    name: str,
    configuration: str,
    loop: Callable[[str, str], None],
    recorder: Recorder,
) -> Contender:
    starts = bench.scratch / "pick_up_loop"

    @contextmanager
    def working() -> Iterator[None]:
        with bare_loops.background(loop, url, str(starts)):
            yield

    return Contender(
        name,
        configuration,
        lambda: _measured(url, bench.sizes.pick_ups, starts, working, recorder.values[name]),
    )


def _measured(
    url: str,
    count: int,
    starts: Path,
    working: Callable[[], AbstractContextManager[object]],
    from_call: list[float],
) -> Sequence[float]:
    starts.write_text("")
    called_at: dict[int, float] = {}
    committed_at: dict[int, float] = {}
    with connect(url) as watcher, psycopg.connect(url) as producer:
        watcher.execute("truncate task_runs")
        with working():
            # The first shows that all is up, and is not counted.
            _enqueue(producer, 0)
            wait_until(lambda: len(_starts_in(starts)) == 1, "the first task")
            for number in range(1, count + 1):
                time.sleep(PAUSE_S)
                called_at[number], committed_at[number] = _enqueue(producer, number)
            wait_until(lambda: len(_starts_in(starts)) == count + 1, "the last task")
    started_at = _starts_in(starts)
    from_call += _latencies_ms(called_at, started_at)
    return _latencies_ms(committed_at, started_at)


def _enqueue(connection: Connection, number: int) -> tuple[float, float]:
    """When it was called, and when COMMIT was sent."""
    called_at = time.time()
    note.enqueue(connection, number)
    committed_at = time.time()
    connection.commit()
    return called_at, committed_at


def _of_a_peer(bench: Bench, installed: InstalledPeer) -> Contender:
    peer = installed.peer
    count = POLLED_PICK_UPS if peer.polls else bench.sizes.pick_ups

    def measure() -> Sequence[float]:
        installed.do("enqueue", 0)
        installed.starts.write_text("")
        with installed.working():
            installed.do("produce", 1, 0)
            wait_until(lambda: len(_starts_in(installed.starts)) == 1, "the first task")
            installed.starts.write_text("")
            said = installed.do("produce", count, PAUSE_S)
            wait_until(lambda: len(_starts_in(installed.starts)) == count, "the last task")
        called_at = {int(number): float(called) for number, called, _ in map(str.split, said.splitlines())}
        return _latencies_ms(called_at, _starts_in(installed.starts))

    return Contender(f"{peer.name} {installed.environment.version}", peer.configuration, measure)


def _starts_in(path: Path) -> dict[int, float]:
    lines = path.read_text().splitlines()
    return {int(number): float(started) for number, started in map(str.split, lines)}


def _latencies_ms(began_at: dict[int, float], started_at: dict[int, float]) -> Sequence[float]:
    return [(started_at[number] - began) * 1000 for number, began in began_at.items()]
