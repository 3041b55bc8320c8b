-- Runs whose holder is lost to everybody: the claim's own lease is past, and so is the lease of the
-- worker (or its row is gone). All are charged, since nobody is left to tell which had started.
-- A renewal that commits after this read began cannot have been believed by its worker, which kills
-- its task a margin before the old lease ends.
with expired as (
    select run.id, least(run.max_attempts, %(max_attempts_ceiling)s::integer) as attempts_allowed
    from task_runs as run
    where run.status = 'RUNNING'
      and run.lease_expires_at < now()
      and not exists (
          select from reproq_workers as worker
          where worker.id = run.leased_by and worker.lease_expires_at >= now()
      )
    order by run.id
    limit %(max_runs)s
    for update of run skip locked
),
reset as (
    update task_runs as run
    set status = case when run.attempts >= attempts_allowed then 'FAILED' else 'PENDING' end,
        finished_at = case when run.attempts >= attempts_allowed then now() end,
        errors = run.errors || (
            %(error)s::jsonb || jsonb_build_object(
                'attempt', run.attempts, 'worker', run.leased_by,
                'started_at', run.last_attempted_at, 'ended_at', now()
            )
        ),
        leased_by = null,
        lease_expires_at = null
    from expired
    where run.id = expired.id
    returning run.id, run.status, run.queue_name
)
select id, status, queue_name, true as charged from reset
