-- Cancels a run. A PENDING run becomes CANCELLED at once. A RUNNING run is marked, and the steward of its worker's
-- host is notified with the worker's id. No row is returned if the run does not exist or has finished.
--
-- A claim or an end that commits meanwhile holds the row's lock. This statement waits for it, and then acts on the
-- new status. A second cancel notifies the steward again, and keeps the time of the first request.
with cancelled as (
    update task_runs
    set status = case when status = 'PENDING' then 'CANCELLED' else status end,
        cancel_requested_at = coalesce(cancel_requested_at, now()),
        errors = case
            when status = 'PENDING' then reproq_append_error(
                errors,
                jsonb_build_object('kind', 'cancelled', 'message', 'the task was cancelled', 'ended_at', now())
            )
            else errors
        end,
        finished_at = case when status = 'PENDING' then now() end,
        finish_due_at = case when status = 'PENDING' and task_path is not null then now() end
    where id = %(run_id)s::bigint and status in ('PENDING', 'RUNNING')
    returning
        {{run_columns}}
),
told as (
    select pg_notify('reproq_cancel', left(leased_by, 200)) from cancelled where status = 'RUNNING'
    union all
    select pg_notify('reproq_finished', cancelled.id::text)
    from cancelled
    cross join lateral (select from reproq_waiters where run_id = cancelled.id limit 1) as waiter
    where cancelled.status = 'CANCELLED'
)
select cancelled.*, (select count(*) from told) as told from cancelled
