-- A run whose holder is lost to everybody: the claim's own lease is past, and so is the lease of the worker, or its row is
-- gone. A lease that no claim gives, for it is missing or ends in days, is none.
run.status = 'RUNNING'
and coalesce(run.lease_expires_at not between now() and now() + interval '2 days', true)
and not exists (
    select from reproq_workers as worker
    where worker.id = run.leased_by and worker.lease_expires_at >= now()
)
