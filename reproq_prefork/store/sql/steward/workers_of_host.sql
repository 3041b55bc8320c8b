-- The workers registered from this host (the same boot, the same pid namespace). A new master checks whether their
-- processes and their masters are gone.
select id, pid, pid_started, master_pid, master_started
from reproq_workers
where host_identity = %(host_identity)s
