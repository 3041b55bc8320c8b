-- The runs that hold these unique keys (a JSON array), at most one per key. A key without a row is free now.
select
    {{run_columns}}
from task_runs
where unique_key in (select jsonb_array_elements_text(%(keys)s::jsonb)) and status in ('PENDING', 'RUNNING')
