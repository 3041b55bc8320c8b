-- A run whose holder is lost to everybody: the claim's own lease has ended, and so has the lease of the worker, or its
-- row is gone. A lease that no claim gives, since it is missing or ends in days, counts as one that has ended.
run.status = 'RUNNING'
and coalesce(run.lease_expires_at not between now() and now() + interval '2 days', true)
and not exists (
    select from reproq_workers as worker
    where worker.id = run.leased_by and worker.lease_expires_at >= now()
)
