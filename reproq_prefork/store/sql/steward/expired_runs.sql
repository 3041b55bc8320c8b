-- The runs that sweep_expired would reset, a page at a time: read where the server has refused to change all of them
-- together, to reset each by itself.
select run.id, run.claims
from task_runs as run
where {{expired_run}}
  and run.id > %(after_id)s::bigint
order by run.id
limit %(max_runs)s
