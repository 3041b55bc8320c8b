select
    {{run_columns}}
from task_runs
where id = %(run_id)s::bigint
