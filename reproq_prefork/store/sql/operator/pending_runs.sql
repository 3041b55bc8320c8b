-- For tests: what waits to be run, of one task or of all.
select id
from task_runs
where status = 'PENDING' and (%(task_path)s::text is null or task_path = %(task_path)s::text)
order by id
