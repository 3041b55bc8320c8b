-- The worker's one statement on the hot path: record what became of the run it held, and take the
-- next ones. One statement is one round trip and one commit. Either half may be empty: a null
-- run_id finishes nothing, max_runs = 0 claims nothing.
--
-- `settled` is fenced by (id, claims, RUNNING): no row means that the lease was lost meanwhile. A run that
-- somebody has cancelled does not go back to PENDING. `told` wakes whoever waits for the end.
--
-- `candidate` walks task_runs_claim_order. For each queue it steps from one priority in use to the
-- next lower one, and reads those whose first row is due from there up to now(). So rows scheduled for
-- later cost one descent of the tree a priority, however many they are. LIMIT stops the walk as
-- soon as enough rows are locked. With several queues it locks up to max_runs in each and takes the
-- best of them; what it leaves is free again at commit, and since it then got all it asked for, the
-- worker passes the wake on. SKIP LOCKED and the row locks make two claims of one row impossible.
--
-- The worker's own lease is looked at in the same snapshot: an expired or removed worker claims nothing.
with recursive settled as (
    update task_runs
    set status = case
            when %(status)s = 'PENDING' and cancel_requested_at is not null then 'CANCELLED'
            else %(status)s
        end,
        result = %(result)s::jsonb,
        last_attempt = %(last_attempt)s::jsonb,
        errors = case
            when %(error)s::jsonb is not null then errors || (
                %(error)s::jsonb || jsonb_build_object(
                    'attempt', attempts, 'worker', leased_by,
                    'started_at', last_attempted_at, 'ended_at', now()
                )
            )
            when %(status)s = 'PENDING' and cancel_requested_at is not null then errors || jsonb_build_object(
                'kind', 'cancelled', 'message', 'the task was cancelled', 'ended_at', now()
            )
            else errors
        end,
        run_after = case
            when %(delay_seconds)s::float8 is null then run_after
            else now() + make_interval(secs => %(delay_seconds)s::float8)
        end,
        attempts = attempts - %(refunded)s::integer,
        worker_ids = worker_ids[:cardinality(worker_ids) - %(refunded)s::integer],
        started_at = case when attempts > %(refunded)s::integer then started_at end,
        finished_at = case when %(status)s <> 'PENDING' or cancel_requested_at is not null then now() end,
        finish_due_at = case
            when %(finish_due)s::boolean and (%(status)s <> 'PENDING' or cancel_requested_at is not null)
            then now()
        end,
        leased_by = null,
        lease_expires_at = null
    where id = %(run_id)s and claims = %(claim)s and status = 'RUNNING'
    returning id, status
),
told as (
    select pg_notify('reproq_finished', settled.id::text)
    from settled
    cross join lateral (select from reproq_waiters where run_id = settled.id limit 1) as waiter
    where settled.status <> 'PENDING'
),
holder as (
    select exists (
        select from reproq_workers where id = %(worker_id)s and lease_expires_at > now()
    ) as holds_lease
),
queue as (
    select name
    from string_to_array(%(queues)s, ',') as names, unnest(names) as name
    where (select holds_lease from holder) and %(max_runs)s::integer > 0
),
candidate as (
    select next_run.id, next_run.priority, next_run.due
    from queue
    cross join lateral (
        with recursive level as (
            (
                select priority, coalesce(run_after, enqueued_at) as first_due
                from task_runs
                where status = 'PENDING' and queue_name = queue.name
                order by queue_name, priority desc, coalesce(run_after, enqueued_at)
                limit 1
            )
            union all
            select lower.priority, lower.first_due
            from level
            cross join lateral (
                select priority, coalesce(run_after, enqueued_at) as first_due
                from task_runs
                where status = 'PENDING' and queue_name = queue.name and priority < level.priority
                order by queue_name, priority desc, coalesce(run_after, enqueued_at)
                limit 1
            ) as lower
        )
        select due_run.id, due_run.priority, due_run.due
        from level
        cross join lateral (
            select id, priority, coalesce(run_after, enqueued_at) as due
            from task_runs
            where status = 'PENDING'
              and queue_name = queue.name
              and priority = level.priority
              and coalesce(run_after, enqueued_at) <= now()
            order by coalesce(run_after, enqueued_at), id
            limit %(max_runs)s::integer
            for update skip locked
        ) as due_run
        where level.first_due <= now()
        limit %(max_runs)s::integer
    ) as next_run
),
claimed as (
    update task_runs
    set status = 'RUNNING',
        attempts = attempts + 1,
        claims = claims + 1,
        leased_by = %(worker_id)s,
        lease_expires_at = now() + make_interval(secs => %(lease_seconds)s::float8),
        worker_ids = worker_ids || %(worker_id)s::text,
        started_at = coalesce(started_at, now()),
        last_attempted_at = now()
    where id = any (array(
        select id from candidate order by priority desc, due, id limit %(max_runs)s::integer
    ))
    returning
        id, claims, attempts, max_attempts, timeout_seconds, queue_name, spec_hash, task_path, priority,
        coalesce(run_after, enqueued_at) as due,
        case when %(read_payload)s::boolean then payload::text end as payload,
        executor, atomic, retry_base_seconds, retry_max_seconds, run_after, enqueued_at, started_at,
        last_attempted_at, worker_ids, metadata::text as metadata,
        case when attempts > 1 then errors::text end as errors
)
select
    (select count(*) from settled) as settled,
    (select count(*) from told) as told,
    (select holds_lease from holder) as holds_lease,
    claimed.id, claimed.claims, claimed.attempts, claimed.max_attempts, claimed.timeout_seconds,
    claimed.queue_name, claimed.spec_hash, claimed.task_path, claimed.payload, claimed.executor,
    claimed.atomic, claimed.retry_base_seconds, claimed.retry_max_seconds, claimed.priority,
    claimed.run_after, claimed.enqueued_at, claimed.started_at, claimed.last_attempted_at,
    claimed.worker_ids, claimed.metadata, claimed.errors
from (values (1)) as always
left join claimed on true
order by claimed.priority desc, claimed.due, claimed.id
