"""pgqueuer on asyncpg and uvloop."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries

from benchmarks.peers.programs import verbs

URL = os.environ["BENCH_URL"]
PORTION = 5_000
BATCH_SIZE = int(os.environ.get("BENCH_BATCH_SIZE", "1000"))


async def prepared():
    connection = await asyncpg.connect(URL)
    await Queries(AsyncpgDriver(connection)).install()


async def enqueued(count):
    connection = await asyncpg.connect(URL)
    await connection.execute("truncate pgqueuer, pgqueuer_log, pgqueuer_statistics")
    queries = Queries(AsyncpgDriver(connection))
    for start in range(0, count, PORTION):
        numbers = range(start, min(count, start + PORTION))
        await queries.enqueue(
            ["no_op"] * len(numbers), [b"%d" % number for number in numbers], [0] * len(numbers)
        )


async def produced(count, pause_s):
    queries = Queries(AsyncpgDriver(await asyncpg.connect(URL)))
    for number in range(count):
        began_at = time.time()
        await queries.enqueue("note", b"%d" % number)
        print(number, repr(began_at), repr(time.time()))
        if pause_s:
            await asyncio.sleep(pause_s)


async def worked():
    queuer = PgQueuer.from_asyncpg_connection(await asyncpg.connect(URL))

    @queuer.entrypoint("no_op")
    async def no_op(job):
        return None

    @queuer.entrypoint("note")
    async def note(job):
        verbs.note_start(int(job.payload))

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, queuer.shutdown.set)
    await queuer.run(batch_size=BATCH_SIZE)


if __name__ == "__main__":
    verbs.main(
        prepare=lambda: uvloop.run(prepared()),
        enqueue=lambda count: uvloop.run(enqueued(int(count))),
        produce=lambda count, pause_s: uvloop.run(produced(int(count), float(pause_s))),
        work=lambda _option="": uvloop.run(worked()),
    )
