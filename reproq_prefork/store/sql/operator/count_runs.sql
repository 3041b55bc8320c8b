-- Every run, by queue and status: reads the whole table, so it is for one that is not large.
select
    queue_name,
    status,
    count(*) as runs,
    count(*) filter (where status = 'PENDING' and coalesce(run_after, enqueued_at) <= now()) as due
from task_runs
group by queue_name, status
