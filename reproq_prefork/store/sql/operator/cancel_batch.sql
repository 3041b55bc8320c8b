-- Cancels these runs as cancel_run cancels one. A PENDING run becomes CANCELLED at once. A RUNNING one is marked,
-- and the steward of its worker's host is notified. Only runs that still have the selected status are cancelled:
-- PENDING, RUNNING or either.
--
-- SKIP LOCKED, and few rows per transaction: this never waits for a claim or an end that holds a row, so it is
-- never part of a deadlock (docs/operations.md, "Many runs at once"). The caller counts the skipped runs.
--
-- end_running: no worker can hold a run here, as in a copy of another database. So a RUNNING run is CANCELLED too.
-- finish_due: announce these ends to the application. In such a copy they are not announced.
with held as (
    select
        id,
        case when status = 'PENDING' or %(end_running)s::boolean then 'CANCELLED' else 'RUNNING' end as verdict
    from task_runs
    where id = any (%(run_ids)s::bigint[])
      and (status = 'PENDING' and %(pending)s::boolean or status = 'RUNNING' and %(running)s::boolean)
    order by id
    for update skip locked
),
changed as (
    update task_runs as run
    set status = verdict,
        cancel_requested_at = coalesce(run.cancel_requested_at, now()),
        errors = case
            when verdict = 'CANCELLED' then reproq_append_error(
                run.errors,
                jsonb_build_object('kind', 'cancelled', 'message', %(message)s::text, 'ended_at', now())
            )
            else run.errors
        end,
        finished_at = case when verdict = 'CANCELLED' then now() end,
        finish_due_at = case
            when verdict = 'CANCELLED' and run.task_path is not null and %(finish_due)s::boolean then now()
        end,
        leased_by = case when verdict = 'RUNNING' then run.leased_by end,
        lease_expires_at = case when verdict = 'RUNNING' then run.lease_expires_at end
    from held
    where run.id = held.id
    returning run.id, run.status, run.leased_by
),
{{notified}},
asked as (
    select pg_notify('reproq_cancel', running.worker)
    from (select distinct left(leased_by, 200) as worker from changed where status = 'RUNNING') as running
)
select
    count(*) filter (where status = 'CANCELLED') as cancelled,
    count(*) filter (where status = 'RUNNING') as asked,
    (select count(*) from notified) + (select count(*) from asked) as notified
from changed
