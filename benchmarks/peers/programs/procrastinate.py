"""procrastinate on psycopg's asynchronous pool."""

from __future__ import annotations

import asyncio
import os
import time

import procrastinate

from benchmarks.peers.programs import verbs

URL = os.environ["BENCH_URL"]
PORTION = 1_000
CONCURRENCY = 10

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=URL, max_size=CONCURRENCY))


@app.task(name="no_op")
async def no_op(number):
    return None


@app.task(name="note")
async def note(number):
    verbs.note_start(number)


@app.task(name="body")
def body(number):  # in a thread, as functions that block are run
    verbs.body(number)


# As its guide "Retry stalled jobs" has it, but each minute and not each ten minutes. Only a storm has it.
if os.environ.get("BENCH_RETRY_STALLED"):

    @app.periodic(cron="* * * * *")
    @app.task(name="retry_stalled_jobs", queueing_lock="retry_stalled_jobs", pass_context=True)
    async def retry_stalled_jobs(context, timestamp):
        for job in await app.job_manager.get_stalled_jobs():
            await app.job_manager.retry_job(job)


async def prepared():
    async with app.open_async():
        await app.schema_manager.apply_schema_async()


async def enqueued(count):
    async with app.open_async():
        await app.connector.execute_query_async("truncate procrastinate_jobs, procrastinate_events cascade")
        for start in range(0, count, PORTION):
            numbers = range(start, min(count, start + PORTION))
            await no_op.batch_defer_async(*({"number": number} for number in numbers))


async def produced(count, pause_s):
    async with app.open_async():
        for number in range(count):
            began_at = time.time()
            await note.defer_async(number=number)
            print(number, repr(began_at), repr(time.time()))
            if pause_s:
                await asyncio.sleep(pause_s)


async def fed(count, pause_s, first):
    async with app.open_async():
        for number in range(first, first + count):
            await body.defer_async(number=number)
            await asyncio.sleep(pause_s)


async def worked():
    async with app.open_async():
        await app.run_worker_async(concurrency=CONCURRENCY)


if __name__ == "__main__":
    verbs.main(
        prepare=lambda: asyncio.run(prepared()),
        enqueue=lambda count: asyncio.run(enqueued(int(count))),
        produce=lambda count, pause_s: asyncio.run(produced(int(count), float(pause_s))),
        feed=lambda count, pause_s, first: asyncio.run(fed(int(count), float(pause_s), int(first))),
        work=lambda _option="": asyncio.run(worked()),
    )
