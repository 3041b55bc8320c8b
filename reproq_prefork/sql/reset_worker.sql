-- All that a dead worker held goes back to PENDING, found by `leased_by`, which only that fork ever
-- used. The run it had started (started_run_id, started_claim) is charged an attempt, and FAILED once
-- they are used up, so that a poison pill ends; what it had claimed and not started is refunded.
-- charge_all: it cannot be known what had started. refund_started: the worker was killed to shut
-- down, which is nobody's attempt, but a started run that must not run twice is FAILED even so.
with held as (
    select
        id,
        %(charge_all)s::boolean
            or (id = %(started_run_id)s::bigint and claims = %(started_claim)s::bigint) is true as had_started,
        least(max_attempts, %(max_attempts_ceiling)s::integer) as attempts_allowed
    from task_runs
    where leased_by = %(worker_id)s and status = 'RUNNING'
    for update
),
verdict as (
    select id, had_started and (not %(refund_started)s::boolean or attempts_allowed = 1) as charged, attempts_allowed
    from held
),
reset as (
    update task_runs as run
    set status = case when charged and run.attempts >= attempts_allowed then 'FAILED' else 'PENDING' end,
        finished_at = case when charged and run.attempts >= attempts_allowed then now() end,
        errors = case
            when charged then run.errors || (
                %(error)s::jsonb || jsonb_build_object(
                    'attempt', run.attempts, 'worker', run.leased_by,
                    'started_at', run.last_attempted_at, 'ended_at', now()
                )
            )
            else run.errors
        end,
        attempts = case when charged then run.attempts else run.attempts - 1 end,
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
gone as (
    delete from reproq_workers where id = %(worker_id)s and not %(keep_registration)s::boolean
)
select id, status, queue_name, charged from reset
