-- Notifies the processes that wait for the end of a run. `changed`: the runs that the statement has changed. The
-- statement must read `notified`, or PostgreSQL leaves it out.
notified as (
    select pg_notify('reproq_finished', changed.id::text)
    from changed
    cross join lateral (select from reproq_waiters where run_id = changed.id limit 1) as waiter
    where changed.status in ('SUCCESSFUL', 'FAILED', 'CANCELLED')
)
