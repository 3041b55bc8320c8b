-- What a running task says of its progress. Fenced, so a task that has lost its run says nothing about the next
-- attempt.
update task_runs
set metadata = %(metadata)s::jsonb
where id = %(run_id)s and claims = %(claim)s and status = 'RUNNING'
returning id
