-- Registers a process that waits for the end of this run and listens: from now on the end is notified. False: it
-- is not notified, so the caller must poll. This is a function, since a login that may write to the table could
-- lock it.
select reproq_await_run(%(run_id)s::bigint, %(waiter)s::text, %(seconds)s::float8) as is_announced
