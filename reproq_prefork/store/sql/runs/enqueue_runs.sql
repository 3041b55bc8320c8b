-- Adds many runs, given as a JSON array, with one statement. See `enqueue_run` for the rest. Ids grow with the
-- position in the array, since an identity is drawn after the sort. So runs that are otherwise equal are claimed
-- in this order. The insert of a key waits for another transaction that inserts the same key. So all callers order
-- the array by key (`bulk.py`), and the sort keeps that order: then two callers never wait for each other.
-- A run whose key is held is left out. No key is in the array twice. Each payload is in an array of its own, since
-- the JSON null would become the null of SQL.
insert into task_runs (
    queue_name, payload, spec_hash, priority, run_after, max_attempts, timeout_seconds, unique_key,
    executor, atomic, retry_base_seconds, retry_max_seconds
)
select
    queue_name, in_array -> 0, spec_hash, priority,
    coalesce(run_after, now() + make_interval(secs => delay_seconds)),
    max_attempts, timeout_seconds, unique_key, executor, atomic, retry_base_seconds, retry_max_seconds
from rows from (
    json_to_recordset(%(runs)s::json) as (
        queue_name text, in_array jsonb, spec_hash text, priority smallint, run_after timestamptz,
        delay_seconds float8, max_attempts integer, timeout_seconds real, unique_key text, executor text,
        atomic boolean, retry_base_seconds real, retry_max_seconds real
    )
) with ordinality as new_run (
    queue_name, in_array, spec_hash, priority, run_after, delay_seconds, max_attempts, timeout_seconds,
    unique_key, executor, atomic, retry_base_seconds, retry_max_seconds, place
)
order by place
on conflict (unique_key) where unique_key is not null and status in ('PENDING', 'RUNNING') do nothing
returning id, enqueued_at, run_after, timeout_seconds, retry_base_seconds, retry_max_seconds, unique_key
