-- The end of a run that the server refuses to give to a worker, or to take from a dead one (`holder`), or from a holder
-- whose lease has ended (`is_expired`): FAILED by its id, with the reason. It touches no column that it need not, and
-- keeps the errors of earlier attempts only where they can be appended to. `told` wakes whoever waits for the end. No
-- row comes back where the run is somebody else's by now.
with failed as (
    update task_runs as run
    set status = 'FAILED',
        errors = case
            when jsonb_typeof(errors) = 'array' and pg_column_size(errors) < 1048576 then errors else '[]'
        end || (%(error)s::jsonb || jsonb_build_object('ended_at', now())),
        finished_at = now(),
        finish_due_at = case when task_path is not null then now() end,
        leased_by = null,
        lease_expires_at = null
    where run.id = %(run_id)s::bigint
      and case run.status
          when 'PENDING' then %(holder)s::text is null
          when 'RUNNING' then run.leased_by = %(holder)s::text or (%(is_expired)s::boolean and {{expired_run}})
      end
    returning run.id, run.status, run.queue_name
),
told as (
    select pg_notify('reproq_finished', failed.id::text)
    from failed
    cross join lateral (select from reproq_waiters where run_id = failed.id limit 1) as waiter
)
select id, status, queue_name, true as charged, (select count(*) from told) as told from failed
