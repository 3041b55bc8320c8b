-- How many PENDING and RUNNING runs match, and the ids of the next of them from the newest on: what is cancelled batch by
-- batch afterwards. Both statuses have a partial index, which two branches find and an OR would not.
-- The ids are taken once for many batches, since each look walks all that match: with one for each batch, the dead
-- entries of what was cancelled before would be walked again and again.
with matching as materialized (
    select id
    from task_runs
    where status = 'PENDING'
      and %(pending)s::boolean
      and id < %(before_id)s::bigint
      and (%(queues)s::text[] is null or queue_name = any (%(queues)s::text[]))
      and (%(task_like)s::text is null or task_path like %(task_like)s::text)
      and (
          %(older_than_seconds)s::float8 is null
          or enqueued_at < now() - make_interval(secs => %(older_than_seconds)s::float8)
      )
    union all
    select id
    from task_runs
    where status = 'RUNNING'
      and %(running)s::boolean
      and id < %(before_id)s::bigint
      and (%(queues)s::text[] is null or queue_name = any (%(queues)s::text[]))
      and (%(task_like)s::text is null or task_path like %(task_like)s::text)
      and (
          %(older_than_seconds)s::float8 is null
          or enqueued_at < now() - make_interval(secs => %(older_than_seconds)s::float8)
      )
)
select
    (select count(*) from matching) as matching,
    array(select id from matching order by id desc limit %(max_runs)s::bigint) as ids
