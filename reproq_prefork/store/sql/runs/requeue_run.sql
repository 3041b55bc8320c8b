-- Copies a run inside the server: the payload does not pass through a client, which might write its numbers in
-- another form. No row is returned if the run does not exist, or if its unique key is held.
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
