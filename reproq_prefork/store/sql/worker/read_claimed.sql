-- A run that was claimed by itself: its row is read once its claim is known, so that it can be FAILED by its id where
-- that takes too long or cannot be done at all.
select
{{claimed_columns}}
from task_runs
where id = %(run_id)s::bigint and claims = %(claim)s::bigint and status = 'RUNNING'
