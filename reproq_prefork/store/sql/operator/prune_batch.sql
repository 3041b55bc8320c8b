-- Among the next max_runs ids, deletes the runs that finished long ago. It walks the primary key, so it needs no
-- index on the time. Each batch is one transaction, so locks and WAL stay small. A run that is locked is skipped,
-- and a later call deletes it. It does not matter whether the end was announced to the application: it is too old
-- to be useful. `is_last`: there are no more ids, or no run in this batch was enqueued early enough to be old. Ids
-- grow with that time, except in a long transaction; a later call finds the runs of such a transaction.
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
