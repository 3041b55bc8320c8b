-- A new run, unless its key is held: then no row comes back. The arbiter is task_runs_unique_key, so whoever
-- inserts the same key at the same time waits for this transaction's end, and one of them gets it.
-- The server's clock decides when a delay ends. The size of the JSON is checked by a trigger.
-- Given back is what the server decides; the rest is known (`run_rows.added_run`).
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
returning id, enqueued_at, run_after, timeout_seconds, retry_base_seconds, retry_max_seconds
