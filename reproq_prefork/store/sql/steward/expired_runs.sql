-- The runs that sweep_expired would reset, page by page. Used if the server has refused to change all of them
-- together: then each is reset alone.
select run.id, run.claims
from task_runs as run
where {{expired_run}}
  and run.id > %(after_id)s::bigint
order by run.id
limit %(max_runs)s
