-- Saves the progress of a running task. It is fenced, so a task that has lost its run changes nothing of the next
-- attempt. It names the worker's id, so it changes nothing in another database (see `complete_run.sql`).
update task_runs
set metadata = %(metadata)s::jsonb
where id = %(run_id)s and claims = %(claim)s and leased_by = %(worker_id)s and status = 'RUNNING'
returning id
