-- Somebody waits for the end of this run and listens: from now on it is announced. False: it is not, so it must be looked
-- for. By a function, since who may write in the table could lock it.
select reproq_await_run(%(run_id)s::bigint, %(waiter)s::text, %(seconds)s::float8) as is_announced
