"""oban-py: asyncio, on psycopg's pool."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import uvloop
from oban import Oban, worker
from oban.schema import install

from benchmarks.peers.programs import verbs

URL = os.environ["BENCH_URL"]
PORTION = 5_000
LIMIT = 50


@worker(queue="default")
class NoOp:
    async def process(self, job):
        return None


@worker(queue="default")
class Note:
    async def process(self, job):
        verbs.note_start(job.args["number"])


async def prepared():
    pool = await Oban.create_pool(dsn=URL)
    await install(pool)
    await pool.close()


async def enqueued(count):
    pool = await Oban.create_pool(dsn=URL)
    async with pool.connection() as connection:
        await connection.execute("truncate oban_jobs")
    oban = Oban(pool=pool)
    for start in range(0, count, PORTION):
        numbers = range(start, min(count, start + PORTION))
        await oban.enqueue_many([NoOp.new({"number": number}) for number in numbers])
    await pool.close()


async def produced(count, pause_s):
    pool = await Oban.create_pool(dsn=URL)
    oban = Oban(pool=pool)
    for number in range(count):
        began_at = time.time()
        await oban.enqueue(Note.new({"number": number}))
        print(number, repr(began_at), repr(time.time()))
        if pause_s:
            await asyncio.sleep(pause_s)
    await pool.close()


async def worked():
    told_to_stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told_to_stop.set)
    pool = await Oban.create_pool(dsn=URL, max_size=10)
    async with Oban(pool=pool, queues={"default": LIMIT}):
        await told_to_stop.wait()
    await pool.close()


if __name__ == "__main__":
    from benchmarks.peers.programs import (
        oban as named,  # workers have the name of the module that is imported
    )

    verbs.main(
        prepare=lambda: uvloop.run(named.prepared()),
        enqueue=lambda count: uvloop.run(named.enqueued(int(count))),
        produce=lambda count, pause_s: uvloop.run(named.produced(int(count), float(pause_s))),
        work=lambda _option="": uvloop.run(named.worked()),
    )
