-- The runs that a worker holds, according to the database. Sent after an unknown outcome (a lost reply, a lost
-- connection), and also once a lease, to hand back runs of which the worker does not know. It walks
-- task_runs_holder.
select id, claims from task_runs where leased_by = %(worker_id)s and status = 'RUNNING'
