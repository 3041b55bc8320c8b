-- A worker executes a run that takes long, and does not hand back the runs that it claimed together with it and
-- has not started. Those after that run in the claim order go back to PENDING, and no attempt counts. Those before
-- it have ended, and the worker records them.
--
-- `current` is still held by the same claim, so in this snapshot the worker has not recorded the batch. And all
-- runs of the batch have the time of its claim. A worker starts no run of a batch that is this late
-- (BATCH_STRETCH_S), so this takes no run that the worker could still start.
--
-- only: the ids of some of them, if the server has refused to change all of them together; null: all.
with current as (
    select last_attempted_at, priority, coalesce(run_after, enqueued_at) as due, id
    from task_runs
    where id = %(run_id)s::bigint and claims = %(claim)s::bigint
      and leased_by = %(worker_id)s and status = 'RUNNING'
),
waiting as (
    select run.id
    from current
    join task_runs as run
        on run.leased_by = %(worker_id)s
       and run.status = 'RUNNING'
       and run.last_attempted_at = current.last_attempted_at
       and (-run.priority::integer, coalesce(run.run_after, run.enqueued_at), run.id)
           > (-current.priority::integer, current.due, current.id)
       and (%(only)s::jsonb is null or run.id in (select jsonb_array_elements_text(%(only)s::jsonb)::bigint))
    order by run.id  -- every statement that locks several runs and waits for them uses this order
    for update of run
),
changed as (
    update task_runs as run
    set status = case when run.cancel_requested_at is null then 'PENDING' else 'CANCELLED' end,
        finished_at = case when run.cancel_requested_at is not null then now() end,
        finish_due_at = case when run.cancel_requested_at is not null and run.task_path is not null then now() end,
        errors = case
            when run.cancel_requested_at is null then run.errors
            else reproq_append_error(run.errors, {{cancelled_error}})
        end,
        attempts = greatest(run.attempts - 1, 0),
        worker_ids = run.worker_ids[:cardinality(run.worker_ids) - 1],
        started_at = case when run.attempts > 1 then run.started_at end,
        leased_by = null,
        lease_expires_at = null
    from waiting
    where run.id = waiting.id
    returning run.id, run.status, run.queue_name
),
{{notified}}
select id, status, queue_name, false as charged, (select count(*) from notified) as notified from changed
