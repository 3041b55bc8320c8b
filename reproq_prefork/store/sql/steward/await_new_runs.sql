-- From now on, an insert of runs into these queues sends a notification: see reproq_receive_new_runs. The session
-- holds the locks, so nothing has to be cleaned up after it. It does not wait for a lock, since any login may take
-- such a lock and keep it. A producer holds one for microseconds while it checks, so a lock that was not free is
-- tried again later.
select queue.name as queue, pg_try_advisory_lock_shared(7238251, hashtext(queue.name)) as held
from unnest(string_to_array(%(queues)s, ',')) as queue (name)
