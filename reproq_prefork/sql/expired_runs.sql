-- The runs that sweep_expired would reset, a page at a time: read where the server has refused to change all of them
-- together, to reset each by itself.
select run.id, run.claims
from task_runs as run
where run.status = 'RUNNING'
  and run.lease_expires_at < now()
  and run.id > %(after_id)s::bigint
  and not exists (
      select from reproq_workers as worker
      where worker.id = run.leased_by and worker.lease_expires_at >= now()
  )
order by run.id
limit %(max_runs)s
