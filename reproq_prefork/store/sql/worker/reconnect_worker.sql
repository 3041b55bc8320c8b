-- After a reconnect: registers the new server process, unless the lease has ended meanwhile. No row means that it
-- has ended; an ended lease is never renewed.
--
-- If not old_is_gone, the server process of the lost connection may still commit a claim, so it stays registered.
-- To be sure that nothing more comes from this worker, others first end the registered process, and see it gone.
update reproq_workers as worker
set backend_pid = case when %(old_is_gone)s::boolean then backend.pid else worker.backend_pid end,
    backend_started = case when %(old_is_gone)s::boolean then backend.backend_start else worker.backend_started end
from (values (1)) as always
left join pg_stat_activity as backend on backend.pid = pg_backend_pid() and not %(pooled)s::boolean
where worker.id = %(worker_id)s and worker.lease_expires_at > now()
returning worker.id
