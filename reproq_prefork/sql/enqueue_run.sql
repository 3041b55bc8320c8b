-- A new run, unless its key is held: then no row comes back. The arbiter is task_runs_unique_key, so whoever
-- inserts the same key at the same time waits for this transaction's end, and one of them gets it.
-- The server's clock decides when a delay ends. The size of the JSON is checked by a trigger.
insert into task_runs (
    queue_name, payload, spec_hash, priority, run_after, max_attempts, timeout_seconds, unique_key,
    executor, atomic, retry_base_seconds, retry_max_seconds
)
values (
    %(queue_name)s, %(payload)s::jsonb, %(spec_hash)s, %(priority)s::smallint,
    coalesce(%(run_after)s::timestamptz, now() + make_interval(secs => %(delay_seconds)s::float8)),
    %(max_attempts)s::integer, %(timeout_seconds)s::real, %(unique_key)s,
    %(executor)s, %(atomic)s::boolean, %(retry_base_seconds)s::real, %(retry_max_seconds)s::real
)
on conflict (unique_key) where unique_key is not null and status in ('PENDING', 'RUNNING') do nothing
returning
    id, queue_name, payload::text as payload, spec_hash, task_path, priority, run_after, status, attempts,
    max_attempts, timeout_seconds, claims, leased_by, lease_expires_at, worker_ids, result::text as result,
    errors::text as errors, enqueued_at, started_at, last_attempted_at, finished_at, replay_of, unique_key,
    executor, atomic, retry_base_seconds, retry_max_seconds, cancel_requested_at, metadata::text as metadata,
    last_attempt::text as last_attempt, finish_due_at
