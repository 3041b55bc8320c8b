-- Reads a run that was claimed alone. The claim is already known then, so the run can be FAILED by its id if
-- reading it takes too long or fails.
select
{{claimed_columns}}
from task_runs
where id = %(run_id)s::bigint and claims = %(claim)s::bigint and status = 'RUNNING'
