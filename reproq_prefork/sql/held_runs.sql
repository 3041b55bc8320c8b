-- What the database says a worker holds: asked after an unknown outcome (a lost reply, a lost
-- connection), to finish what was not finished and hand back what the worker does not know of.
select id, claims from task_runs where leased_by = %(worker_id)s and status = 'RUNNING'
