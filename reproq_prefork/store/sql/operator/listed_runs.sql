-- What `list` prints of these runs. Times come as text, and ages as seconds: a row may hold times that a Python
-- datetime cannot, and PostgreSQL subtracts infinite times only from version 17 on.
select
    id,
    status,
    queue_name,
    task_path,
    priority,
    attempts,
    max_attempts,
    unique_key,
    replay_of,
    (extract(epoch from now()) - extract(epoch from enqueued_at))::float8 as enqueued_seconds,
    json_build_object(
        'enqueued_at', enqueued_at, 'run_after', run_after, 'started_at', started_at, 'finished_at', finished_at
    )::text as times,
    last_error ->> 'kind' as error_kind,
    last_error ->> 'exception' as error_exception,
    left(last_error ->> 'message', %(max_message_chars)s::integer) as error_message
from task_runs
cross join lateral (
    select case when jsonb_typeof(errors) = 'array' then errors -> -1 end as last_error
) as newest
where id = any (%(ids)s::bigint[])
order by id desc
