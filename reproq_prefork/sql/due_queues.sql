-- Is anything due? Asked once a poll interval for the whole host. It steps from priority to priority
-- as the claim does, so rows scheduled for later cost one descent a priority.
select queue.name
from unnest(string_to_array(%(queues)s, ',')) as queue (name)
where exists (
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
    select from level where level.first_due <= now()
)
