-- For a copy of another database: the workers of the original announce these ends to the application.
update task_runs set finish_due_at = null where finish_due_at is not null
