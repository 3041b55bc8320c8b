-- As count_runs, from a sample of the table's pages: multiply the counts by 100 / percent.
select
    queue_name,
    status,
    count(*) as runs,
    count(*) filter (where status = 'PENDING' and coalesce(run_after, enqueued_at) <= now()) as due
from task_runs tablesample system (%(percent)s::real)
group by queue_name, status
