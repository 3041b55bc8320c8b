-- For each queue with a due run: how long its oldest due run has waited. It steps along task_runs_claim_order from
-- queue to queue and from priority to priority. So it costs one index descent for each of these, however many runs
-- wait there. The times are subtracted as seconds, since PostgreSQL subtracts infinite times only from version 17
-- on.
with recursive queue as (
    (select queue_name from task_runs where status = 'PENDING' order by queue_name limit 1)
    union all
    select next_queue.queue_name
    from queue
    cross join lateral (
        select queue_name
        from task_runs
        where status = 'PENDING' and queue_name > queue.queue_name
        order by queue_name
        limit 1
    ) as next_queue
)
select
    queue.queue_name,
    (extract(epoch from now()) - extract(epoch from oldest.due))::float8 as waited_seconds
from queue
cross join lateral (
    with recursive {{first_due_of_levels}}
    select min(first_due) as due from level where first_due <= now()
) as oldest
where oldest.due is not null
