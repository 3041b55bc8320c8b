-- Forgets whoever waited for the end of a run and did not say that it has stopped: the first of those whose time is
-- over, along reproq_waiters_expires_at. A bounded part of them, and none that somebody has locked, since leases are
-- renewed between two statements.
with expired as (
    select run_id, waiter
    from reproq_waiters
    where expires_at < now()
    order by expires_at
    limit %(max_waiters)s::bigint
    for update skip locked
),
forgotten as (
    delete from reproq_waiters as waiter
    using expired
    where waiter.run_id = expired.run_id and waiter.waiter = expired.waiter
    returning waiter.run_id
)
select count(*) as forgotten from forgotten
