"""The least that Python has to do: psycopg, one of our statements, and no engine around it."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, LiteralString, cast

import psycopg
from psycopg.types.numeric import Int8Dumper

from benchmarks.waiting import wait_until
from reproq_prefork.model.identity import HostIdentity, ProcessIdentity, WorkerIdentity
from reproq_prefork.model.run import ClaimedRun
from reproq_prefork.store.statements import statement
from reproq_prefork.store.worker_store import WorkerStore

LEASE_S = 86_400.0  # longer than any measurement
WORKER_ID = "bench"

LISTEN: LiteralString = "listen reproq_task_runs"
# The last statement of an idle connection is shown.
_IS_LISTENING: LiteralString = """
    select exists (
        select from pg_stat_activity where query = %s and state = 'idle' and datname = current_database()
    )
"""

# What the runs before have become, and a claim of the next ones, in one commit.
FINISH_AND_CLAIM = "finish_and_claim"
GENERIC_PLANS: LiteralString = "set plan_cache_mode = force_generic_plan"  # as on every connection of ours
FIXED: Mapping[str, Any] = {"worker_id": WORKER_ID, "lease_seconds": LEASE_S}
NOTHING_ENDED = "[]"
Row = Sequence[Any]


def from_the_head(queues: Sequence[str] = ("default",)) -> str:
    """`places` of a first claim."""
    return json.dumps([{"queue_name": queue} for queue in queues])


def settlements(rows: Sequence[Row]) -> str:
    """Of runs that were claimed, and have succeeded."""
    ended = (f'{{"id":{row[0]},"claim":{row[1]},"status":"SUCCESSFUL","result":null}}' for row in rows)
    return f"[{','.join(ended)}]"


def behind(row: Row) -> str:
    """`places` of the claim after one that has ended with this run, in the one queue there is."""
    run = ClaimedRun._make(row[: len(ClaimedRun._fields)])
    place = run.place._asdict()
    return json.dumps(
        [{"queue_name": run.queue_name, "above": run.priority}, {"queue_name": run.queue_name, **place}]
    )


def register(url: str) -> None:
    """The holder of the lease that every claim looks at."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("delete from reproq_workers")
    nobody = ProcessIdentity(0, 0)
    identity = WorkerIdentity(WORKER_ID, HostIdentity("bench", "bench"), nobody, nobody, "0", ("default",))
    store = WorkerStore(url, identity, lease_s=LEASE_S)
    store.register()
    store.close()


def prepared(url: str) -> psycopg.Connection[tuple[Any, ...]]:
    """A connection that prepares everything at once, as a worker's does."""
    connection = psycopg.connect(url, autocommit=True, prepare_threshold=0)
    connection.adapters.register_dumper(int, Int8Dumper)
    connection.execute(GENERIC_PLANS)
    return connection


def claim_and_finish(url: str, batch: int) -> None:
    """Until there is nothing left."""
    text: Any = statement(FINISH_AND_CLAIM)
    parameters = {**FIXED, "max_runs": batch, "settlements": NOTHING_ENDED, "places": from_the_head()}
    with prepared(url) as connection:
        cursor = connection.cursor()
        while True:
            rows = cursor.execute(text, parameters).fetchall()
            if rows[0][0] is not None:
                parameters |= {"settlements": settlements(rows), "places": behind(rows[-1])}
            elif parameters["places"] != from_the_head():
                parameters |= {"settlements": NOTHING_ENDED, "places": from_the_head()}
            else:
                return


def in_processes(target: Callable[..., None], count: int, *arguments: Any) -> None:
    """Run `target(*arguments)` in `count` processes, to their ends."""
    fresh = multiprocessing.get_context("spawn")
    loops = [fresh.Process(target=target, args=arguments) for _ in range(count)]
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join()
    if any(loop.exitcode != 0 for loop in loops):
        raise RuntimeError("a bare loop has failed")


def listen(url: str, starts: str) -> None:
    """Write down when each notification comes; the n-th is taken for that of task n."""
    with psycopg.connect(url, autocommit=True) as connection, Path(starts).open("a") as file:
        _be_told(connection)
        for number, _ in enumerate(connection.notifies()):
            file.write(f"{number} {time.time()!r}\n")
            file.flush()


def listen_and_claim(url: str, starts: str) -> None:
    """The same, once the task is claimed by our own statement, which also finishes the one before."""
    text: Any = statement(FINISH_AND_CLAIM)
    ended = NOTHING_ENDED
    with prepared(url) as connection, Path(starts).open("a") as file:
        cursor = connection.cursor()
        _be_told(connection)
        for number in itertools.count():
            for _ in connection.notifies(stop_after=1):
                pass
            rows = cursor.execute(
                text, {**FIXED, "max_runs": 1, "settlements": ended, "places": from_the_head()}
            ).fetchall()
            file.write(f"{number} {time.time()!r}\n")
            file.flush()
            ended = settlements(rows)


def _be_told(connection: psycopg.Connection[tuple[Any, ...]]) -> None:
    """New runs are announced only where somebody wants to hear of them."""
    connection.execute(cast(Any, statement("await_new_runs")), {"queues": "default"})
    connection.execute(LISTEN)


@contextmanager
def background(loop: Callable[[str, str], None], url: str, starts: str) -> Iterator[None]:
    """`loop(url, starts)` in a process of its own, from when it listens to the end of the block."""
    process = multiprocessing.get_context("spawn").Process(target=loop, args=(url, starts))
    process.start()
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            wait_until(lambda: _listens(connection), "the start of a bare loop")
        yield
    finally:
        process.kill()
        process.join()


def _listens(connection: psycopg.Connection[tuple[Any, ...]]) -> bool:
    row = connection.execute(_IS_LISTENING, [LISTEN]).fetchone()
    return row == (True,)
