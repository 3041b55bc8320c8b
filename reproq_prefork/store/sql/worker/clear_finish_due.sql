-- The application has been told of the end of this run.
update task_runs set finish_due_at = null where id = %(run_id)s::bigint and finish_due_at is not null
