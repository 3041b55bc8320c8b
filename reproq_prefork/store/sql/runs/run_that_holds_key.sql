-- The run that holds a unique key: at most one, because of task_runs_unique_key. None: it has finished meanwhile.
select
    {{run_columns}}
from task_runs
where unique_key = %(unique_key)s::text and status in ('PENDING', 'RUNNING')
