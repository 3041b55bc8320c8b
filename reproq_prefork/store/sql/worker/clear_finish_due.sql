-- The end of this run has been announced to the application.
update task_runs set finish_due_at = null where id = %(run_id)s::bigint and finish_due_at is not null
