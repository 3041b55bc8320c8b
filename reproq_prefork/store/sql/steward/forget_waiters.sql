-- Deletes the entries of processes that waited for the end of a run and did not say that they had stopped: those
-- whose time ended first, along reproq_waiters_expires_at. It deletes a bounded number and skips locked rows,
-- since the steward renews leases between two statements.
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
