-- Counts recent failures by queue. There is no index on the end time, so it reads only the newest max_runs runs:
-- one walk back along the primary key.
select queue_name, count(*) as runs
from (select queue_name, status, finished_at from task_runs order by id desc limit %(max_runs)s::bigint) as newest
where status = 'FAILED' and finished_at > now() - make_interval(secs => %(seconds)s::float8)
group by queue_name
