-- Whether a run matches what `list` looks for (`listed_runs.Wanted`). The text of errors is read last, and only if
-- all else matches: it may be long. Entries by others may have any form.
case
    when (
        (%(statuses)s::text[] is null or status = any (%(statuses)s::text[]))
        and (%(queues)s::text[] is null or queue_name = any (%(queues)s::text[]))
        and (%(task_like)s::text is null or task_path like %(task_like)s::text)
        and (
            %(since_seconds)s::float8 is null
            or enqueued_at >= now() - make_interval(secs => %(since_seconds)s::float8)
        )
        and (
            %(older_than_seconds)s::float8 is null
            or enqueued_at < now() - make_interval(secs => %(older_than_seconds)s::float8)
        )
    ) is not true then false
    when %(error)s::text is null then true
    when errors = '[]'::jsonb then false
    when jsonb_typeof(errors) <> 'array' then strpos(lower(errors::text), lower(%(error)s::text)) > 0
    else exists (
        select
        from jsonb_array_elements(errors) as entry
        where strpos(
            lower(concat_ws(
                E'\n', entry ->> 'kind', entry ->> 'exception', entry ->> 'message', entry ->> 'traceback',
                entry ->> 'stderr', entry ->> 'output'
            )),
            lower(%(error)s::text)
        ) > 0
    )
end
