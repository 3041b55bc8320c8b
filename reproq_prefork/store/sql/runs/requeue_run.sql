-- A copy of a run, made inside the server: the payload never passes through a client, which might write its
-- numbers another way. No row comes back where the run is not there, or where its key is held.
insert into task_runs (
    queue_name, payload, spec_hash, priority, max_attempts, timeout_seconds, unique_key, executor, atomic,
    retry_base_seconds, retry_max_seconds, replay_of
)
select
    queue_name, payload, spec_hash, priority, max_attempts, timeout_seconds, unique_key, executor, atomic,
    retry_base_seconds, retry_max_seconds, id
from task_runs
where id = %(run_id)s::bigint
on conflict (unique_key) where unique_key is not null and status in ('PENDING', 'RUNNING') do nothing
returning
    {{run_columns}}
