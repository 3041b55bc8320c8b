-- Counts the unfinished runs by queue and status, from the two partial indexes. It counts at most max_pending
-- PENDING runs, so its cost is bounded even if many runs wait.
select
    queue_name,
    status,
    count(*) as runs,
    count(*) filter (where status = 'PENDING' and due <= now()) as due
from (
    (
        select queue_name, status, coalesce(run_after, enqueued_at) as due
        from task_runs
        where status = 'PENDING'
        limit %(max_pending)s::bigint
    )
    union all
    select queue_name, status, coalesce(run_after, enqueued_at) as due
    from task_runs
    where status = 'RUNNING'
) as live
group by queue_name, status
