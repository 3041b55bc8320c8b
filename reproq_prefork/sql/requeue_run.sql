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
    id, queue_name, payload::text as payload, spec_hash, task_path, priority, run_after, status, attempts,
    max_attempts, timeout_seconds, claims, leased_by, lease_expires_at, worker_ids, result::text as result,
    errors::text as errors, enqueued_at, started_at, last_attempted_at, finished_at, replay_of, unique_key,
    executor, atomic, retry_base_seconds, retry_max_seconds, cancel_requested_at, metadata::text as metadata,
    last_attempt::text as last_attempt, finish_due_at
