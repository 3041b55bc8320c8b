-- Ends a run that nobody can claim: FAILED by its id, with the reason. It changes only the columns that it must,
-- and keeps the errors of earlier attempts only if it can append to them. `notified` notifies the processes that
-- wait for the end.
with changed as (
    update task_runs
    set status = 'FAILED',
        errors = reproq_append_error(
            case when jsonb_typeof(errors) = 'array' and pg_column_size(errors) < 1048576 then errors else '[]' end,
            %(error)s::jsonb || jsonb_build_object('ended_at', now())
        ),
        finished_at = now(),
        finish_due_at = case when task_path is not null then now() end
    where id = %(run_id)s::bigint and status = 'PENDING'
    returning id, status
),
{{notified}}
select id, (select count(*) from notified) as notified from changed
