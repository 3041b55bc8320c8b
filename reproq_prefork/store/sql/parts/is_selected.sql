-- Whether a run is one of those that an operator has selected (`unfinished_runs.Selection`).
id < %(before_id)s::bigint
and (%(queues)s::text[] is null or queue_name = any (%(queues)s::text[]))
and (%(task_like)s::text is null or task_path like %(task_like)s::text)
and (
    %(older_than_seconds)s::float8 is null
    or enqueued_at < now() - make_interval(secs => %(older_than_seconds)s::float8)
)
