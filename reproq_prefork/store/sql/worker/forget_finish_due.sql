-- For a copy of another database, whose own workers tell the application of these ends.
update task_runs set finish_due_at = null where finish_due_at is not null
