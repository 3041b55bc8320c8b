-- What a running task says of its progress. Fenced, so a task that has lost its run says nothing about the next
-- attempt, and by the worker's id nothing in another database (see `complete_run.sql`).
update task_runs
set metadata = %(metadata)s::jsonb
where id = %(run_id)s and claims = %(claim)s and leased_by = %(worker_id)s and status = 'RUNNING'
returning id
