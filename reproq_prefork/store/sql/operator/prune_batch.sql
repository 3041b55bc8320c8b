-- Deletes what finished long ago among the next max_runs ids. Walking the primary key needs no index of its
-- own on the time; each batch is a transaction of its own, so locks and WAL stay small. A run that somebody
-- else has locked is left for another day. Whether the application was told of its end is not asked: after so long
-- that is no news.
-- `is_last`: no id is left, or this batch holds nothing that was enqueued early enough to be old; ids grow
-- with that time, but for a transaction that took long, whose runs a later call finds.
with batch as materialized (
    select id, enqueued_at
    from task_runs
    where id > %(after_id)s::bigint
    order by id
    limit %(max_runs)s::bigint
),
old as (
    select id
    from task_runs
    where id in (select id from batch)
      and status in ('SUCCESSFUL', 'FAILED', 'CANCELLED')
      and coalesce(finished_at, enqueued_at) < now() - make_interval(
          secs => case status
              when 'SUCCESSFUL' then %(older_than_seconds)s::float8
              else %(failed_older_than_seconds)s::float8
          end
      )
    for update skip locked
),
deleted as (
    delete from task_runs where id in (select id from old) returning id
)
select
    (select count(*) from deleted) as deleted,
    max(id) as last_id,
    count(*) < %(max_runs)s::bigint
        or min(enqueued_at) > now() - make_interval(
            secs => least(%(older_than_seconds)s::float8, %(failed_older_than_seconds)s::float8)
        ) as is_last
from batch
