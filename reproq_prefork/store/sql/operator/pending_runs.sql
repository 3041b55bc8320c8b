-- For tests: the PENDING runs of one task, or of all tasks.
select id
from task_runs
where status = 'PENDING' and (%(task_path)s::text is null or task_path = %(task_path)s::text)
order by id
