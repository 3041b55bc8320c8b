-- Adds the row of a new worker and its first lease. backend_pid and backend_started name its server process:
-- before the runs of a dead worker are reset, that process is ended, and seen gone. Both are null behind a pooler.
insert into reproq_workers (
    id, host, host_identity, pid, pid_started, master_pid, master_started,
    backend_pid, backend_started, version, queues, lease_expires_at
)
select
    %(worker_id)s, %(host)s, %(host_identity)s, %(pid)s, %(pid_started)s, %(master_pid)s, %(master_started)s,
    backend.pid, backend.backend_start, %(version)s, string_to_array(%(queues)s, ','),
    now() + make_interval(secs => %(lease_seconds)s::float8)
from (values (1)) as always
left join pg_stat_activity as backend on backend.pid = pg_backend_pid() and not %(pooled)s::boolean
