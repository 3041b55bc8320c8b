-- Of the max_scanned runs before an id, the newest that match. It walks the primary key from its end, because no
-- index has all that can be asked for: a batch takes some milliseconds, and the caller stops once it has enough.
-- `is_last`: there are no more ids, or no run in this batch was enqueued late enough. Ids grow with that time,
-- except in a long transaction.
with batch as materialized (
    select id, enqueued_at, {{is_listed}} as is_listed
    from task_runs
    where id < %(before_id)s::bigint
    order by id desc
    limit %(max_scanned)s::bigint
)
select
    array(select id from batch where is_listed order by id desc limit %(max_runs)s::bigint) as ids,
    min(id) as last_id,
    count(*) < %(max_scanned)s::bigint
        or coalesce(max(enqueued_at) < now() - make_interval(secs => %(since_seconds)s::float8), false) as is_last
from batch
