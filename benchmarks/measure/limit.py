"""What the server can do with our own statements, by pgbench and by bare loops: the limit of any engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks import bare_loops, pgbench
from benchmarks.bench import Bench
from benchmarks.interleaved import Contender
from benchmarks.pgbench import Carried, Script
from benchmarks.servers import new_queue
from benchmarks.subject.installation import INLINE
from benchmarks.subject.queue import connect, fill, wait_until_drained
from reproq_prefork.worker.batch_size import MAX_BATCH

DATABASE = "limit"

# What a call hands to the next one: what its runs have become, and behind which of them to go on. All were
# enqueued at the same moment, with the same priority.
_SETTLEMENTS = (
    "jsonb_agg(jsonb_build_object('id', id, 'claim', claims, 'status', 'SUCCESSFUL', 'result', null))"
)
_PLACES = (
    "jsonb_build_array("
    "jsonb_build_object('queue_name', 'default', 'above', 0), "
    "jsonb_build_object('queue_name', 'default', 'priority', 0, 'due', max(history::jsonb ->> 1), 'id', max(id)))"
)


def script(batch: int) -> Script:
    """The statement for so many runs a commit."""
    return Script(
        bare_loops.FINISH_AND_CLAIM,
        literals={**bare_loops.FIXED, "max_runs": batch},
        carried={
            "settlements": Carried(_SETTLEMENTS, bare_loops.NOTHING_ENDED),
            "places": Carried(_PLACES, bare_loops.from_the_head()),
        },
    )


def by_pgbench(clients: int) -> str:
    """The name of a line."""
    return f"pgbench, {_clients(clients)}"


def by_pgbench_in_batches(clients: int) -> str:
    return f"pgbench in batches, {_clients(clients)}"


def _clients(count: int) -> str:
    return f"{count} client{'' if count == 1 else 's'}"


def contenders(bench: Bench, clients: Sequence[int]) -> list[Contender]:
    url = new_queue(bench.server.url, DATABASE)
    bare_loops.register(url)
    made = []
    for batch, name, psycopg_name in (
        (1, by_pgbench, "bare psycopg loop, {}"),
        (MAX_BATCH, by_pgbench_in_batches, "bare psycopg loop in batches, {}"),
    ):
        many = "one task" if batch == 1 else f"{batch} tasks"
        configuration = f"finish_and_claim.sql, {many} a commit, prepared"
        for count in clients:
            made.append(Contender(name(count), configuration, _by_pgbench(bench, url, batch, count)))
            bare = psycopg_name.format(_clients(count))
            made.append(Contender(bare, configuration, _by_psycopg(bench, url, batch, count)))
    return made


def _runs(bench: Bench, batch: int) -> int:
    return bench.sizes.limit_runs if batch == 1 else bench.sizes.limit_batch_runs


def _by_pgbench(bench: Bench, url: str, batch: int, clients: int) -> Callable[[], Sequence[float]]:
    transactions = max(2, _runs(bench, batch) // (batch * clients))  # of each client

    def measure() -> Sequence[float]:
        with connect(url) as connection:
            # No call may find the queue empty, and each client's first finishes nothing.
            fill(connection, INLINE, transactions * clients * batch)
            rate = pgbench.run(
                script(batch),
                url,
                clients=clients,
                transactions=transactions * clients,
                directory=bench.scratch,
            )
            row = connection.execute("select count(*) from task_runs where status = 'SUCCESSFUL'").fetchone()
            if row != ((transactions - 1) * clients * batch,):
                raise RuntimeError(f"pgbench finished {row} runs in {transactions} transactions a client")
            return [rate * batch]

    return measure


def _by_psycopg(bench: Bench, url: str, batch: int, clients: int) -> Callable[[], Sequence[float]]:
    runs = _runs(bench, batch)

    def measure() -> Sequence[float]:
        with connect(url) as connection:
            fill(connection, INLINE, runs)
            bare_loops.in_processes(bare_loops.claim_and_finish, clients, url, batch)
            return [wait_until_drained(connection, runs).per_s]

    return measure
