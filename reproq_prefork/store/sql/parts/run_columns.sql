-- All columns of a run. Every row must be readable. `history` has the times and the list of workers as JSON: it
-- does not depend on the session's DateStyle, and can hold times that a Python datetime cannot. The other JSON
-- comes as text too: `run_rows` alone converts it for Python, whichever JSON loader the caller has set.
id, queue_name, payload::text as payload, spec_hash, task_path, priority, status, attempts, max_attempts, timeout_seconds,
claims, leased_by, result::text as result, errors::text as errors, replay_of, unique_key, executor, atomic,
retry_base_seconds, retry_max_seconds, metadata::text as metadata, last_attempt::text as last_attempt,
json_build_object(
    'run_after', run_after, 'lease_expires_at', lease_expires_at, 'enqueued_at', enqueued_at, 'started_at', started_at,
    'last_attempted_at', last_attempted_at, 'finished_at', finished_at, 'cancel_requested_at', cancel_requested_at,
    'finish_due_at', finish_due_at, 'worker_ids', worker_ids
)::text as history
