-- Records the success of an atomic task in the transaction of its own effects: both are committed, or neither. The
-- fence is that of `changed` in finish_and_claim: no row means that the worker has lost the run, and the
-- transaction must not be committed. The worker's id is named too, since this uses another connection than the
-- claim. That id is never used again anywhere, so in another database no row can match. finish_due_at is a minute
-- ahead: the process that executed the task announces its end and clears it. The claim was the last to change the
-- row, so this works at every isolation level.
with changed as (
    update task_runs
    set status = 'SUCCESSFUL',
        result = %(result)s::jsonb,
        last_attempt = %(last_attempt)s::jsonb,
        finished_at = clock_timestamp(),
        finish_due_at = clock_timestamp() + interval '60 seconds',
        leased_by = null,
        lease_expires_at = null
    where id = %(run_id)s and claims = %(claim)s and leased_by = %(worker_id)s and status = 'RUNNING'
    returning id, status
),
{{notified}}
select id, (select count(*) from notified) as notified from changed
