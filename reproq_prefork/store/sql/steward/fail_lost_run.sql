-- Ends a run that has lost its holder, if the server refuses again and again to reset it: the smallest write that
-- ends it. `error` null: not even the reason is written. The attempt counts, since nobody knows whether it had
-- started. The claim number is the fence: a lease that has ended is never renewed, and each new holder has another
-- claim number. `notified` notifies the processes that wait for the end.
with changed as (
    update task_runs
    set status = case when cancel_requested_at is null then 'FAILED' else 'CANCELLED' end,
        errors = case
            when %(error)s::jsonb is null then errors else reproq_append_error(errors, %(error)s::jsonb)
        end,
        finished_at = now(),
        finish_due_at = case when task_path is not null then now() end,
        leased_by = null,
        lease_expires_at = null
    where id = %(run_id)s::bigint and claims = %(claim)s::bigint and status = 'RUNNING'
    returning id, status, queue_name
),
{{notified}}
select id, status, queue_name, true as charged, (select count(*) from notified) as notified from changed
