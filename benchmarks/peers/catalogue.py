"""All peers, each in the best configuration that its documentation names for tasks that do nothing.

Logs are at each one's quietest documented level: we write none for a task either.
"""

from __future__ import annotations

from benchmarks.peers.peer import Peer, Runtime, Service, Watch

PEERS: tuple[Peer, ...] = (
    Peer(
        name="graphile-worker",
        module="graphile_worker",
        package="graphile-worker",
        requirements=("graphile-worker", "pg"),
        configuration="Node; 2 processes, concurrency 24, local queue 500, completion in batches",
        runs=100_000,
        runtime=Runtime.NODE,
        watch=Watch(
            is_drained="select not exists (select from graphile_worker._private_jobs)",
            first_start="select extract(epoch from min(locked_at))::float8 from graphile_worker._private_jobs",
        ),
        recovery="after 4 h (age of the lock)",
    ),
    Peer(
        name="pgqueuer",
        module="pgqueuer",
        package="pgqueuer",
        requirements=("pgqueuer[asyncpg]", "uvloop"),
        configuration="asyncio on uvloop and asyncpg; 2 processes, batches of 1,000",
        runs=100_000,
        watch=Watch(
            is_drained="select not exists (select from pgqueuer)",
            span="""
                select
                    count(*) filter (where status = 'successful'),
                    extract(epoch from
                        max(created) filter (where status = 'successful')
                        - min(created) filter (where status = 'picked'))::float8
                from pgqueuer_log
            """,
        ),
        recovery="about 30 s (heartbeat); attempts not raised",
    ),
    Peer(
        name="oban",
        module="oban",
        package="oban",
        requirements=("oban",),
        configuration="asyncio; 4 processes, limit 50 each",
        runs=20_000,
        processes=4,
        watch=Watch(
            is_drained="""
                select not exists (
                    select from oban_jobs where state in ('available', 'executing', 'scheduled', 'retryable')
                )
            """,
            span="""
                select
                    count(*) filter (where state = 'completed'),
                    extract(epoch from max(completed_at) - min(attempted_at))::float8
                from oban_jobs
            """,
        ),
        recovery="after 300 s; a live task that takes longer runs twice",
    ),
    Peer(
        name="procrastinate",
        module="procrastinate",
        package="procrastinate",
        requirements=("procrastinate", "psycopg[binary,pool]"),
        configuration="asyncio; 2 processes, concurrency 10",
        runs=3_000,
        watch=Watch(
            is_drained="select not exists (select from procrastinate_jobs where status in ('todo', 'doing'))",
            span="""
                select
                    count(*) filter (where type = 'succeeded'),
                    extract(epoch from
                        max(at) filter (where type = 'succeeded') - min(at) filter (where type = 'started')
                    )::float8
                from procrastinate_events
            """,
        ),
        recovery="when a rescue task that one writes oneself runs",
    ),
    Peer(
        name="django-ox",
        module="django_ox",
        package="django-ox",
        requirements=("django-ox", "psycopg[binary,pool]"),
        configuration="1 supervisor, 2 processes × 2 threads, psycopg's pool, DEBUG off",
        runs=3_000,
        processes=1,
        polls=True,
        watch=Watch(
            is_drained="select not exists (select from django_ox_oxtask where status in ('READY', 'RUNNING'))",
            span="""
                select
                    count(*) filter (where status = 'SUCCESSFUL'),
                    extract(epoch from max(finished_at) - min(started_at))::float8
                from django_ox_oxtask
            """,
        ),
        recovery="after 300 s (lease)",
    ),
    Peer(
        name="django-tasks-db",
        module="django_tasks_db",
        package="django-tasks-db",
        requirements=("django-tasks-db", "psycopg[binary,pool]"),
        configuration="4 processes, persistent connections, DEBUG off",
        runs=2_000,
        processes=4,
        polls=True,
        watch=Watch(
            is_drained="""
                select not exists (
                    select from django_tasks_database_dbtaskresult where status in ('READY', 'RUNNING')
                )
            """,
            span="""
                select
                    count(*) filter (where status = 'SUCCESSFUL'),
                    extract(epoch from max(finished_at) - min(started_at))::float8
                from django_tasks_database_dbtaskresult
            """,
        ),
        recovery="never",
    ),
    Peer(
        name="steady-queue",
        module="steady_queue",
        package="steady-queue",
        requirements=("steady-queue", "psycopg[binary,pool]"),
        configuration="1 supervisor, 2 processes × 10 threads, polling each 0.1 s (its default)",
        runs=600,
        processes=1,
        polls=True,
        watch=Watch(
            is_drained="select not exists (select from steady_queue_job where finished_at is null)",
            # What is claimed is deleted, so the first end stands for the first start.
            span="""
                select count(finished_at), extract(epoch from max(finished_at) - min(finished_at))::float8
                from steady_queue_job
            """,
        ),
        recovery="its parent sees it; marked as failed, not run again",
    ),
    Peer(
        name="Celery prefork",
        module="celery",
        package="celery",
        requirements=("celery[redis]", "hiredis"),
        configuration="Redis; 2 masters × 2 children, acks_late, results in Redis, prefetch 4 (default)",
        runs=3_000,
        service=Service.REDIS,
        recovery="never by default; its parent sees it where reject_on_worker_lost is set",
    ),
    Peer(
        name="RQ, fork per job",
        module="rq",
        package="rq",
        requirements=("rq", "hiredis"),
        configuration="Redis; 2 × Worker (a fork for each job), quiet, results kept",
        runs=400,
        service=Service.REDIS,
        option="rq.Worker",
        recovery="its maintenance, at the earliest after the job's own time-out",
    ),
    Peer(
        name="RQ, SimpleWorker",
        module="rq",
        package="rq",
        requirements=("rq", "hiredis"),
        configuration="Redis; 2 × SimpleWorker (no fork), quiet, results kept",
        runs=1_200,
        service=Service.REDIS,
        option="rq.SimpleWorker",
    ),
)


def named(names: tuple[str, ...]) -> tuple[Peer, ...]:
    """Those whose module or name is among `names`. Raises KeyError for a name that nobody has."""
    for name in names:
        if not any(name in (peer.name, peer.module) for peer in PEERS):
            raise KeyError(name)
    return tuple(peer for peer in PEERS if peer.name in names or peer.module in names)
