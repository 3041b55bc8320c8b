-- Releases the locks of `await_new_runs`.
select pg_advisory_unlock_shared(7238251, hashtext(queue.name)) as was_held
from unnest(string_to_array(%(queues)s, ',')) as queue (name)
