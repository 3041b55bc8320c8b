-- Puts all runs that a dead worker held back to PENDING. They are found by `leased_by`, an id that only that fork
-- ever used. For runs that had started (`started`: the current one, and those whose ends it could not record) the
-- attempt counts, and they become FAILED when no attempt is left. So a poison pill ends. For runs that were
-- claimed and not started, no attempt counts. charge_all: nobody knows which runs had started. refund_started: the
-- worker was killed to shut down. That is nobody's fault, so no attempt counts. But a started run that must not
-- run twice is FAILED even so.
--
-- only: the ids of some of them, if the server has refused to change all of them together; null: all.
--
-- A cancelled run becomes CANCELLED in every case. If the attempt counts, its entry in errors says how the worker
-- was lost, and its status says that it was cancelled. `notified` notifies the processes that wait for an end.
with held as (
    select
        id,
        %(charge_all)s::boolean
            or exists (
                select from jsonb_to_recordset(%(started)s::jsonb) as started (id bigint, claim bigint)
                where started.id = task_runs.id and started.claim = task_runs.claims
            ) as had_started,
        least(max_attempts, %(max_attempts_ceiling)s::integer) as attempts_allowed,
        attempts >= least(max_attempts, %(max_attempts_ceiling)s::integer) as is_last_attempt,
        cancel_requested_at is not null as cancel_requested
    from task_runs
    where leased_by = %(worker_id)s and status = 'RUNNING'
      and (%(only)s::jsonb is null or id in (select jsonb_array_elements_text(%(only)s::jsonb)::bigint))
    order by id  -- every statement that locks several runs and waits for them uses this order
    for update
),
verdict as (
    select id, charged, case
            when cancel_requested then 'CANCELLED'
            when charged and is_last_attempt then 'FAILED'
            else 'PENDING'
        end as status
    from held
    cross join lateral (
        select had_started and (not %(refund_started)s::boolean or attempts_allowed = 1) as charged
    ) as charge
),
changed as (
    update task_runs as run
    set status = verdict.status,
        finished_at = case when verdict.status <> 'PENDING' then now() end,
        finish_due_at = case when verdict.status <> 'PENDING' and run.task_path is not null then now() end,
        errors = case
            when charged then reproq_append_error(
                run.errors,
                %(error)s::jsonb || jsonb_build_object(
                    'attempt', run.attempts, 'worker', run.leased_by,
                    'started_at', run.last_attempted_at, 'ended_at', now()
                )
            )
            when verdict.status = 'CANCELLED' then reproq_append_error(run.errors, {{cancelled_error}})
            else run.errors
        end,
        attempts = case when charged then run.attempts else greatest(run.attempts - 1, 0) end,
        worker_ids = case
            when charged then run.worker_ids
            else run.worker_ids[:cardinality(run.worker_ids) - 1]
        end,
        started_at = case when charged or run.attempts > 1 then run.started_at end,
        leased_by = null,
        lease_expires_at = null
    from verdict
    where run.id = verdict.id
    returning run.id, run.status, run.queue_name, charged
),
{{notified}},
gone as (
    delete from reproq_workers where id = %(worker_id)s and not %(keep_registration)s::boolean
)
select id, status, queue_name, charged, (select count(*) from notified) as notified from changed
