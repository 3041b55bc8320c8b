-- Who is registered from this host (the same boot, the same pid namespace): a new master looks
-- whether their processes, and their master's, are gone.
select id, pid, pid_started, master_pid, master_started
from reproq_workers
where host_identity = %(host_identity)s
