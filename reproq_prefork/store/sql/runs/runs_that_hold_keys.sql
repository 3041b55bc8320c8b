-- Who holds these unique keys, a JSON array; at most one each. A key that is missing is free by now.
select
    {{run_columns}}
from task_runs
where unique_key in (select jsonb_array_elements_text(%(keys)s::jsonb)) and status in ('PENDING', 'RUNNING')
