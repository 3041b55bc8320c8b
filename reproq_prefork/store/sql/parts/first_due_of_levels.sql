-- For `with recursive`, where `queue.queue_name` is in scope: each priority that has PENDING runs in this queue, and
-- when the first of them is due. It steps along task_runs_claim_order, so a priority costs one index descent, however
-- many runs wait there.
level as (
    (
        select priority, coalesce(run_after, enqueued_at) as first_due
        from task_runs
        where status = 'PENDING' and queue_name = queue.queue_name
        order by queue_name, priority desc, coalesce(run_after, enqueued_at)
        limit 1
    )
    union all
    select lower.priority, lower.first_due
    from level
    cross join lateral (
        select priority, coalesce(run_after, enqueued_at) as first_due
        from task_runs
        where status = 'PENDING' and queue_name = queue.queue_name and priority < level.priority
        order by queue_name, priority desc, coalesce(run_after, enqueued_at)
        limit 1
    ) as lower
)
