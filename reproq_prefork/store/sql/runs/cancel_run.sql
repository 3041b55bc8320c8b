-- Cancels a run. A PENDING run becomes CANCELLED at once. A RUNNING run is marked, and the steward of its worker's
-- host is notified with the worker's id. No row is returned if the run does not exist or has finished.
--
-- A claim or an end that commits meanwhile holds the row's lock. This statement waits for it, and then acts on the
-- new status. A second cancel notifies the steward again, and keeps the time of the first request.
with changed as (
    update task_runs
    set status = case when status = 'PENDING' then 'CANCELLED' else status end,
        cancel_requested_at = coalesce(cancel_requested_at, now()),
        errors = case
            when status = 'PENDING' then reproq_append_error(errors, {{cancelled_error}})
            else errors
        end,
        finished_at = case when status = 'PENDING' then now() end,
        finish_due_at = case when status = 'PENDING' and task_path is not null then now() end
    where id = %(run_id)s::bigint and status in ('PENDING', 'RUNNING')
    returning
        {{run_columns}}
),
{{notified}},
asked as (
    select pg_notify('reproq_cancel', left(leased_by, 200)) from changed where status = 'RUNNING'
)
select changed.*, (select count(*) from notified) as notified, (select count(*) from asked) as asked from changed
