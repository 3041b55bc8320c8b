-- Among the next max_runs ids, deletes the runs that finished long ago. It walks the primary key, so it needs no
-- index on the time. Each batch is one transaction, so locks and WAL stay small. A run that is locked is skipped,
-- and a later call deletes it. It does not matter whether the end was announced to the application: it is too old
-- to be useful.
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
      and {{is_old}}
    for update skip locked
),
deleted as (
    delete from task_runs where id in (select id from old) returning id
)
select
    (select count(*) from deleted) as runs,
    max(id) as last_id,
    {{is_last_batch}} as is_last
from batch
