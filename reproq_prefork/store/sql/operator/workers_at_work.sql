-- The registered workers: one row for each run that a worker holds, or one row without a run if it holds none.
-- Also the runs whose holder is gone: they wait for the sweep. The times are subtracted as seconds, since
-- PostgreSQL subtracts infinite times only from version 17 on.
select
    coalesce(worker.id, run.leased_by) as worker_id,
    worker.host,
    worker.pid,
    worker.version,
    to_json(worker.queues)::text as queues,
    (extract(epoch from now()) - extract(epoch from worker.started_at))::float8 as up_seconds,
    (extract(epoch from worker.lease_expires_at) - extract(epoch from now()))::float8 as lease_seconds,
    run.id as run_id,
    run.queue_name,
    run.task_path,
    run.attempts,
    (extract(epoch from now()) - extract(epoch from run.last_attempted_at))::float8 as running_seconds,
    run.cancel_requested_at is not null as cancel_requested
from reproq_workers as worker
full join (select * from task_runs where status = 'RUNNING') as run on run.leased_by = worker.id
order by worker.host, worker_id, run.id
