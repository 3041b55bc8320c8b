-- What `prune_batch` would delete, without a lock: so it also works on a standby. It takes more ids at a time,
-- because it writes nothing.
with batch as materialized (
    select id, enqueued_at, ({{is_old}}) as is_old
    from task_runs
    where id > %(after_id)s::bigint
    order by id
    limit %(max_runs)s::bigint
)
select
    count(*) filter (where is_old) as runs,
    max(id) as last_id,
    {{is_last_batch}} as is_last
from batch
