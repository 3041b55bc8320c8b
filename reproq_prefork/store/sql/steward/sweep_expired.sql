-- Resets the runs that have lost their holder: the claim's own lease has ended, and the worker's lease has ended
-- too (or its row is gone). The attempt of each counts, since nobody knows which had started. A renewal may commit
-- after this statement began to read. But the worker cannot have believed it: it kills its task a margin before
-- the end of the old lease.
--
-- A cancelled run becomes CANCELLED: its entry in errors says how it ended, and its status says that it was
-- cancelled. `notified` notifies the processes that wait for an end.
--
-- only: the ids of some of them, if the server has refused to change all of them together; null: all.
--
-- The same statement deletes registrations that nobody else deletes: their lease ended long ago, and they hold no
-- run any more. (A run that is reset here counts as held until the next sweep.)
with expired as (
    select
        run.id,
        case
            when run.cancel_requested_at is not null then 'CANCELLED'
            when run.attempts >= least(run.max_attempts, %(max_attempts_ceiling)s::integer) then 'FAILED'
            else 'PENDING'
        end as verdict
    from task_runs as run
    where {{expired_run}}
      and (%(only)s::jsonb is null or run.id in (select jsonb_array_elements_text(%(only)s::jsonb)::bigint))
    order by run.id
    limit %(max_runs)s
    for update of run skip locked
),
changed as (
    update task_runs as run
    set status = verdict,
        finished_at = case when verdict <> 'PENDING' then now() end,
        finish_due_at = case when verdict <> 'PENDING' and run.task_path is not null then now() end,
        errors = reproq_append_error(
            run.errors,
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
),
{{notified}},
forgotten_workers as (
    delete from reproq_workers as worker
    where worker.lease_expires_at < now() - interval '1 minute'
      and not exists (select from task_runs where leased_by = worker.id and status = 'RUNNING')
)
select id, status, queue_name, true as charged, (select count(*) from notified) as notified from changed
