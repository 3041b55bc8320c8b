-- Many new runs by one statement, as a JSON array; `enqueue_run` says the rest. Ids grow with the place in the
-- array, since an identity is drawn after the sort, and so the runs are taken in this order where they are equal.
-- Each insert of a key waits for whoever is inserting the same one, so the array has its keys in one order for all
-- callers (`bulk.py`), and the sort keeps it: then nobody waits for somebody who waits for them.
-- A run whose key is held is left out, and no key stands in the array twice. Each payload stands in an array of its
-- own, since the JSON null would become the null of SQL.
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
