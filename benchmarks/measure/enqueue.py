"""How fast runs are added: one a transaction, many at once, and by eight producers, with and without NOTIFY."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from hashlib import sha256
from typing import LiteralString

from benchmarks.bench import Bench
from benchmarks.figures import Shape, Table
from benchmarks.interleaved import Contender, interleaved
from benchmarks.peers.lifecycle import InstalledPeer
from benchmarks.peers.selection import installed_peers
from benchmarks.servers import new_queue
from benchmarks.subject.queue import Connection, connect
from benchmarks.subject.tasks import no_op
from reproq_prefork import NewRun, enqueue_many
from reproq_prefork.spec import Spec
from reproq_prefork.store.steward_store import StewardStore

NAME = "enqueue"
ONE_BY_ONE = "Enqueue: one run a transaction"
BULK = "Enqueue: many runs in one transaction"
PRODUCERS = "Enqueue: one run a transaction, 8 producers at once"
BY_API = "reproq-prefork, by the API"
BARE_INSERT = "bare psycopg INSERT of the same row"
COPY = "bare psycopg COPY of the same rows"
DATABASE = "enqueue"
PRODUCER_COUNT = 8
SLEEPS = "NOTIFY, for a worker sleeps"
BUSY = "no NOTIFY, for all are busy"

_INSERT: LiteralString = "insert into task_runs (payload, spec_hash) values (%s::jsonb, %s)"
_COPY: LiteralString = "copy task_runs (payload, spec_hash) from stdin"


def tables(bench: Bench) -> tuple[Table, ...]:
    url = new_queue(bench.server.url, DATABASE)
    with ExitStack() as stack:
        alone = [
            _alone(bench, url, BY_API, "task.enqueue(connection, n), autocommit", _by_api, is_ours=True),
            _alone(bench, url, BARE_INSERT, "prepared, autocommit", _by_insert),
            *(_of_a_peer(bench, installed) for installed in installed_peers(bench, stack)),
        ]
        one_by_one = interleaved(alone, bench.rounds)
    bulk = interleaved(
        [
            _bulk(bench, url, BY_API, "enqueue_many(connection, new_runs)", _many_by_api, is_ours=True),
            _bulk(bench, url, COPY, "payload and spec_hash", _many_by_copy),
        ],
        bench.rounds,
    )
    producers = interleaved(
        [
            _at_once(
                bench, url, f"reproq-prefork, {SLEEPS}", "by the API", _by_api, notify=True, is_ours=True
            ),
            _at_once(
                bench, url, f"reproq-prefork, {BUSY}", "by the API", _by_api, notify=False, is_ours=True
            ),
            _at_once(bench, url, f"bare psycopg INSERT, {SLEEPS}", "prepared", _by_insert, notify=True),
            _at_once(bench, url, f"bare psycopg INSERT, {BUSY}", "prepared", _by_insert, notify=False),
        ],
        bench.rounds,
    )
    return (
        Table(ONE_BY_ONE, "tasks/s", Shape.RATE, one_by_one, ("No worker runs.",)),
        Table(BULK, "tasks/s", Shape.RATE, bulk, (f"{bench.sizes.bulk_runs:,} tasks, and their commit.",)),
        Table(PRODUCERS, "tasks/s", Shape.RATE, producers),
    )


def _by_api(connection: Connection, numbers: Sequence[int]) -> None:
    for number in numbers:
        no_op.enqueue(connection, number)


def _by_insert(connection: Connection, numbers: Sequence[int]) -> None:
    """The same rows, with the least that can be done to make what they hold."""
    for number in numbers:
        canonical = f'{{"args":[{number}],"kwargs":{{}},"task":"{no_op.path}","v":1}}'
        connection.execute(_INSERT, (canonical, sha256(canonical.encode()).hexdigest()))


def _many_by_api(connection: Connection, specs: Sequence[Spec]) -> None:
    enqueue_many(connection, [NewRun.of(spec) for spec in specs])


def _many_by_copy(connection: Connection, specs: Sequence[Spec]) -> None:
    with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
        for spec in specs:
            copy.write_row((spec.canonical, spec.hash))


Producer = Callable[[Connection, Sequence[int]], None]


def _alone(
    bench: Bench, url: str, name: str, configuration: str, produce: Producer, *, is_ours: bool = False
) -> Contender:
    def measure() -> Sequence[float]:
        with connect(url) as connection:
            connection.execute("truncate task_runs")
            produce(connection, range(10))  # plans and prepares
            began = time.monotonic()
            produce(connection, range(bench.sizes.enqueues))
            return [bench.sizes.enqueues / (time.monotonic() - began)]

    return Contender(name, configuration, measure, is_ours)


def _bulk(
    bench: Bench,
    url: str,
    name: str,
    configuration: str,
    produce: Callable[[Connection, Sequence[Spec]], None],
    *,
    is_ours: bool = False,
) -> Contender:
    runs = bench.sizes.bulk_runs

    def measure() -> Sequence[float]:
        # Both get what the caller has: specs, whose text and hash are made already.
        specs = [no_op.spec(number) for number in range(runs)]
        with connect(url) as connection:
            connection.execute("truncate task_runs")
            began = time.monotonic()
            produce(connection, specs)
            return [runs / (time.monotonic() - began)]

    return Contender(name, configuration, measure, is_ours)


def _at_once(
    bench: Bench,
    url: str,
    name: str,
    configuration: str,
    produce: Producer,
    *,
    notify: bool,
    is_ours: bool = False,
) -> Contender:
    share = max(1, bench.sizes.enqueues // 4)

    def measure() -> Sequence[float]:
        with connect(url) as connection:
            connection.execute("truncate task_runs")
            with _somebody_to_tell(url) if notify else nullcontext():
                return [share * PRODUCER_COUNT / _seconds_together(url, produce, share)]

    return Contender(name, configuration, measure, is_ours)


@contextmanager
def _somebody_to_tell(url: str) -> Iterator[None]:
    """A steward that wants to be told of new runs, as it does while a worker of its host is idle."""
    steward = StewardStore(url, application_name="bench", queues=("default",), max_attempts_ceiling=None)
    steward.listen()
    steward.await_new_runs()
    try:
        yield
    finally:
        steward.close()


def _seconds_together(url: str, produce: Producer, share: int) -> float:
    """From when all producers are connected to when all are done."""
    fresh = multiprocessing.get_context("forkserver")
    fresh.set_forkserver_preload([__name__])
    ready, go = fresh.Semaphore(0), fresh.Semaphore(0)
    loops = [
        fresh.Process(target=_produce_when_told, args=(url, produce, share, ready, go))
        for _ in range(PRODUCER_COUNT)
    ]
    for loop in loops:
        loop.start()
    for _ in loops:
        ready.acquire()
    began = time.monotonic()
    for _ in loops:
        go.release()
    for loop in loops:
        loop.join()
    seconds = time.monotonic() - began
    if any(loop.exitcode != 0 for loop in loops):
        raise RuntimeError("a producer has failed")
    return seconds


def _produce_when_told(url: str, produce: Producer, share: int, ready: object, go: object) -> None:
    with connect(url) as connection:
        produce(connection, range(5))
        ready.release()  # type: ignore[attr-defined]
        go.acquire()  # type: ignore[attr-defined]
        produce(connection, range(share))


def _of_a_peer(bench: Bench, installed: InstalledPeer) -> Contender:
    peer = installed.peer
    count = bench.sizes.enqueues // 5  # the slowest makes sixty a second

    def measure() -> Sequence[float]:
        installed.do("enqueue", 0)
        lines = installed.do("produce", count, 0).splitlines()
        first, last = lines[0].split(), lines[-1].split()
        return [count / (float(last[2]) - float(first[1]))]

    return Contender(f"{peer.name} {installed.environment.version}", "its API, one call a task", measure)
