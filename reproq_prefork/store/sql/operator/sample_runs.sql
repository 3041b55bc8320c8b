-- As count_runs, of a part of the table's pages: to be multiplied by 100 / percent.
select
    queue_name,
    status,
    count(*) as runs,
    count(*) filter (where status = 'PENDING' and coalesce(run_after, enqueued_at) <= now()) as due
from task_runs tablesample system (%(percent)s::real)
group by queue_name, status
