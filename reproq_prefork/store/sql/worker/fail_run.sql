-- Ends a run that nobody can claim: FAILED by its id, with the reason. It changes only the columns that it must,
-- and keeps the errors of earlier attempts only if it can append to them. `told` notifies the processes that wait
-- for the end.
with failed as (
    update task_runs
    set status = 'FAILED',
        errors = reproq_append_error(
            case when jsonb_typeof(errors) = 'array' and pg_column_size(errors) < 1048576 then errors else '[]' end,
            %(error)s::jsonb || jsonb_build_object('ended_at', now())
        ),
        finished_at = now(),
        finish_due_at = case when task_path is not null then now() end
    where id = %(run_id)s::bigint and status = 'PENDING'
    returning id
),
told as (
    select pg_notify('reproq_finished', failed.id::text)
    from failed
    cross join lateral (select from reproq_waiters where run_id = failed.id limit 1) as waiter
)
select id, (select count(*) from told) as told from failed
