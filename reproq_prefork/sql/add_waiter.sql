-- Somebody waits for the end of this run and listens: from now on it is announced.
insert into reproq_waiters (run_id, waiter, expires_at)
values (%(run_id)s, %(waiter)s, now() + make_interval(secs => %(seconds)s::float8))
