-- One run's payload by itself: after a claim that failed because a payload could not be read, this
-- tells which one, so that it is failed by its id and the queue goes on.
select payload::text as payload from task_runs where id = %(run_id)s
