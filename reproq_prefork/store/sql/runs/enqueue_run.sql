-- Adds a run, unless its unique key is held: then no row is returned. The arbiter index is task_runs_unique_key:
-- if another transaction inserts the same key at the same time, this one waits for its end, and one of them gets
-- the key. The server's clock decides when a delay ends. A trigger checks the size of the JSON.
-- It returns only what the server decides; the caller knows the rest (`run_rows.added_run`).
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
