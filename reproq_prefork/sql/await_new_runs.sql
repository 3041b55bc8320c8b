-- From now on, whoever inserts runs into these queues announces them: see reproq_receive_new_runs. The session
-- holds the locks, so nothing is left to be put right after it. Waits only while somebody tries the lock, which
-- is for microseconds.
select pg_advisory_lock_shared(7238251, hashtext(queue.name)) as held
from unnest(string_to_array(%(queues)s, ',')) as queue (name)
