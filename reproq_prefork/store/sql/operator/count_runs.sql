-- Counts all runs by queue and status. It reads the whole table, so use it only if the table is not large.
select
    queue_name,
    status,
    count(*) as runs,
    count(*) filter (where status = 'PENDING' and coalesce(run_after, enqueued_at) <= now()) as due
from task_runs
group by queue_name, status
