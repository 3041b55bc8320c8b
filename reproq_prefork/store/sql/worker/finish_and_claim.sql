-- The worker's only statement on the hot path: record the ends of the runs it held, and claim the next ones. One
-- statement is one round trip and one commit, for one run or for hundreds. Either half may be empty: an
-- empty `settlements` records nothing, and max_runs = 0 claims nothing.
--
-- `settlements` is one JSON array, since a statement with an SQL array parameter would be planned at each call.
-- `changed` is fenced by (id, claims, RUNNING): no row means that the lease was lost meanwhile. A cancelled run
-- does not go back to PENDING. No process of its task can have announced that end, so for a Python task the end is
-- due to be announced, whatever the worker says. `notified` notifies the processes that wait for the end.
--
-- `changed` may wait for a lock that another session has on one of its runs. So it comes first: `queue` counts its
-- rows, only to force this order. While it waits, nothing else is locked, and what comes after it waits for
-- nobody. The caller orders the settlements by id, and the planner, as a rule, keeps that order.
--
-- `candidate` walks task_runs_claim_order. For each queue it steps from one used priority to the next lower one.
-- Where the first row of a priority is due, it reads from there up to now(). So rows scheduled for later cost one
-- descent of the tree per priority, however many they are. The head of a queue has the dead entries of the runs
-- taken before. So a queue may instead be walked in two parts: the priorities `above` a priority, and the rows
-- after a place in that priority (priority, due, id: the last row that this worker took there). The next walk from
-- the head finds the rows that were added before that place meanwhile.
--
-- LIMIT stops the walk as soon as enough rows are locked. With several queues it locks up to max_runs in each and
-- takes the best of them. The others are free again at commit. The worker then got all it asked for, so it wakes
-- another worker. SKIP LOCKED and the row locks make it impossible to claim a row twice.
--
-- `chosen`: some runs must not be executed again without need: a run on its last or only attempt, one with an
-- attempt behind it, an atomic one. Such a run is claimed alone: it ends the batch before it, or is a batch of its
-- own if it is the first. The payloads of a batch have at most 1 MiB, as they are stored.
--
-- The worker's own lease is checked in the same snapshot: a worker with an ended lease or without a row claims
-- nothing.
with recursive changed as (
    update task_runs as run
    set status = case
            when settlement.status = 'PENDING' and run.cancel_requested_at is not null then 'CANCELLED'
            else settlement.status
        end,
        result = settlement.result,
        last_attempt = settlement.last_attempt,
        errors = case
            when settlement.error is not null then reproq_append_error(
                run.errors,
                settlement.error || jsonb_build_object(
                    'attempt', run.attempts, 'worker', run.leased_by,
                    'started_at', run.last_attempted_at, 'ended_at', now()
                )
            )
            when settlement.status = 'PENDING' and run.cancel_requested_at is not null
            then reproq_append_error(run.errors, {{cancelled_error}})
            else run.errors
        end,
        run_after = case
            when settlement.delay_seconds is null then run.run_after
            else now() + make_interval(secs => settlement.delay_seconds)
        end,
        attempts = case when settlement.refunded then greatest(run.attempts - 1, 0) else run.attempts end,
        worker_ids = case
            when settlement.refunded then run.worker_ids[:cardinality(run.worker_ids) - 1]
            else run.worker_ids
        end,
        started_at = case when settlement.refunded and run.attempts = 1 then null else run.started_at end,
        finished_at = case when settlement.status <> 'PENDING' or run.cancel_requested_at is not null then now() end,
        finish_due_at = case
            when settlement.status <> 'PENDING' and settlement.finish_due then now()
            when settlement.status = 'PENDING' and run.cancel_requested_at is not null and run.task_path is not null
            then now()
        end,
        leased_by = null,
        lease_expires_at = null
    from jsonb_to_recordset(%(settlements)s::jsonb) as settlement (
        id bigint, claim bigint, status text, result jsonb, error jsonb, delay_seconds float8, refunded boolean,
        last_attempt jsonb, finish_due boolean
    )
    where run.id = settlement.id and run.claims = settlement.claim and run.status = 'RUNNING'
    returning run.id, run.status
),
{{notified}},
holder as (
    select exists (
        select from reproq_workers where id = %(worker_id)s and lease_expires_at > now()
    ) as holds_lease
),
queue as (
    select place.queue_name, place.above, place.priority, place.due, place.id
    from jsonb_to_recordset(%(places)s::jsonb) as place (
        queue_name text, above smallint, priority smallint, due timestamptz, id bigint
    )
    where (select holds_lease from holder)
      and %(max_runs)s::integer > 0
      and (select count(*) from changed) >= 0
),
candidate as (
    select next_run.id, next_run.priority, next_run.due, next_run.alone, next_run.stored_bytes
    from queue
    cross join lateral (
        with recursive level as (
            (
                select queue.priority, queue.due as from_due, queue.id as from_id
                where queue.id is not null
                union all
                (
                    select priority, coalesce(run_after, enqueued_at), (-9223372036854775808)::bigint
                    from task_runs
                    where status = 'PENDING'
                      and queue_name = queue.queue_name
                      and priority > coalesce(queue.above::integer, -32769)
                      and queue.id is null
                    order by queue_name, priority desc, coalesce(run_after, enqueued_at)
                    limit 1
                )
            )
            union all
            select lower.priority, lower.first_due, (-9223372036854775808)::bigint
            from level
            cross join lateral (
                select priority, coalesce(run_after, enqueued_at) as first_due
                from task_runs
                where status = 'PENDING'
                  and queue_name = queue.queue_name
                  and priority < level.priority
                  and priority > coalesce(queue.above::integer, -32769)
                order by queue_name, priority desc, coalesce(run_after, enqueued_at)
                limit 1
            ) as lower
        )
        select due_run.id, due_run.priority, due_run.due, due_run.alone, due_run.stored_bytes
        from level
        cross join lateral (
            select
                id, priority, coalesce(run_after, enqueued_at) as due,
                max_attempts = 1 or attempts > 0 or atomic as alone, pg_column_size(payload) as stored_bytes
            from task_runs
            where status = 'PENDING'
              and queue_name = queue.queue_name
              and priority = level.priority
              and coalesce(run_after, enqueued_at) <= now()
              and (coalesce(run_after, enqueued_at), id) > (level.from_due, level.from_id)
            order by coalesce(run_after, enqueued_at), id
            limit %(max_runs)s::integer
            for update skip locked
        ) as due_run
        where level.from_due <= now()
        limit %(max_runs)s::integer
    ) as next_run
),
chosen as (
    select id
    from (
        select
            id, row_number() over claim_order as place,
            count(*) filter (where alone) over claim_order as alone_so_far,
            sum(stored_bytes) over claim_order as bytes_so_far
        from candidate
        window claim_order as (order by priority desc, due, id)
    ) as placed
    where place = 1 or (place <= %(max_runs)s::integer and alone_so_far = 0 and bytes_so_far <= 1048576)
),
claimed as (
    update task_runs
    set {{set_claimed}}
    where id = any (array(select id from chosen))
    returning
        {{claimed_columns}}, coalesce(run_after, enqueued_at) as due
)
select
    claimed.id, claimed.claims, claimed.payload, claimed.spec_hash, claimed.task_path, claimed.queue_name,
    claimed.attempts, claimed.max_attempts, claimed.timeout_seconds, claimed.executor, claimed.atomic,
    claimed.retry_base_seconds, claimed.retry_max_seconds, claimed.priority, claimed.history, claimed.errors,
    claimed.metadata, claimed.unreadable,
    (select count(*) from changed) as settled,
    (select count(*) from notified) as notified,
    (select holds_lease from holder) as holds_lease,
    (select count(*) from candidate) as found
from (values (1)) as always
left join claimed on true
order by claimed.priority desc, claimed.due, claimed.id
