-- What the database says a worker holds. Asked after an unknown outcome (a lost reply, a lost connection), and once a
-- lease in any case, to hand back what the worker does not know of. It walks task_runs_holder.
select id, claims from task_runs where leased_by = %(worker_id)s and status = 'RUNNING'
