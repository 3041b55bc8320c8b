-- What has not finished, by queue and status, from the two partial indexes; at most max_pending of those that
-- wait, so that it stays bounded whatever has piled up.
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
