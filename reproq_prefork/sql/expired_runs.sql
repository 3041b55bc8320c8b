-- The runs that sweep_expired would reset, for when each is to be reset by itself.
select run.id
from task_runs as run
where {{expired_run}}
order by run.id
limit %(max_runs)s
