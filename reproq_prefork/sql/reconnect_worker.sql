-- After a reconnect: note the new server process, unless the lease has ended meanwhile. No row means
-- that it has, and a lease that has ended is never revived.
update reproq_workers as worker
set backend_pid = backend.pid,
    backend_started = backend.backend_start
from (values (1)) as always
left join pg_stat_activity as backend on backend.pid = pg_backend_pid() and not %(pooled)s::boolean
where worker.id = %(worker_id)s and worker.lease_expires_at > now()
returning worker.id
