-- Who holds these unique keys, a JSON array; at most one each. A key that is missing is free by now.
select
    id, queue_name, payload::text as payload, spec_hash, task_path, priority, run_after, status, attempts,
    max_attempts, timeout_seconds, claims, leased_by, lease_expires_at, worker_ids, result::text as result,
    errors::text as errors, enqueued_at, started_at, last_attempted_at, finished_at, replay_of, unique_key,
    executor, atomic, retry_base_seconds, retry_max_seconds, cancel_requested_at, metadata::text as metadata,
    last_attempt::text as last_attempt, finish_due_at
from task_runs
where unique_key in (select jsonb_array_elements_text(%(keys)s::jsonb)) and status in ('PENDING', 'RUNNING')
