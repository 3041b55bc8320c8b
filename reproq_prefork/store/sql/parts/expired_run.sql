-- A run that has lost its holder: the claim's own lease has ended, and the worker's lease has ended too, or its
-- row is gone. A lease that no claim writes (it is missing, or ends days from now) counts as ended.
run.status = 'RUNNING'
and coalesce(run.lease_expires_at not between now() and now() + interval '2 days', true)
and not exists (
    select from reproq_workers as worker
    where worker.id = run.leased_by and worker.lease_expires_at >= now()
)
