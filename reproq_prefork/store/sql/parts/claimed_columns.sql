-- What a worker reads of a run that it has claimed. Every row must be readable. So times and arrays come as JSON,
-- which does not depend on the session's DateStyle, and numbers are put within the bounds of `new_run`. If the run
-- must not be executed even so, `unreadable` says why. (greatest and least ignore a null.)
id,
claims,
payload::text as payload,
spec_hash,
task_path,
queue_name,
greatest(attempts, 1) as attempts,
least(greatest(max_attempts, 1), 1000) as max_attempts,
case when timeout_seconds is not null then least(greatest(timeout_seconds, 0), 31536000) end as timeout_seconds,
executor,
atomic,
case when retry_base_seconds is not null then least(greatest(retry_base_seconds, 0), 31536000) end as retry_base_seconds,
case when retry_max_seconds is not null then least(greatest(retry_max_seconds, 0), 31536000) end as retry_max_seconds,
priority,
json_build_array(run_after, enqueued_at, started_at, last_attempted_at, worker_ids)::text as history,
case when attempts > 1 then errors::text end as errors,
metadata::text as metadata,
case
    when id = 0 then 'its id is 0, which means no run on the scoreboard'
    when attempts = 2147483647 or claims = 9223372036854775807 then 'its attempts or claims cannot be counted any further'
    when array_ndims(worker_ids) > 1 then 'its worker_ids have more than one dimension'
    when not (run_after >= timestamptz '0002-01-01 UTC' and run_after < timestamptz '9999-01-01 UTC')
        or not (enqueued_at >= timestamptz '0002-01-01 UTC' and enqueued_at < timestamptz '9999-01-01 UTC')
        or not (started_at >= timestamptz '0002-01-01 UTC' and started_at < timestamptz '9999-01-01 UTC')
    then 'its run_after, enqueued_at or started_at is not in the years 2 to 9998'
end as unreadable
