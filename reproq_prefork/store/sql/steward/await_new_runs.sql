-- From now on, whoever inserts runs into these queues announces them: see reproq_receive_new_runs. The session
-- holds the locks, so nothing is left to be put right after it. Not by waiting: any login may take such a lock and
-- keep it. A producer has it for microseconds as it asks, so one that cannot be had is tried again.
select queue.name as queue, pg_try_advisory_lock_shared(7238251, hashtext(queue.name)) as held
from unnest(string_to_array(%(queues)s, ',')) as queue (name)
