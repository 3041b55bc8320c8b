-- The run that a claim would take next, but for those that are passed by. Asked where claiming many was refused, to
-- find out which run it is that the server refuses to give; only then, for it reads what is scheduled for later in a
-- higher priority as well. What others are about to claim is locked, and stepped over.
select due_run.id
from unnest(string_to_array(%(queues)s, ',')) as queue (name)
cross join lateral (
    select id, priority, coalesce(run_after, enqueued_at) as due
    from task_runs
    where status = 'PENDING'
      and queue_name = queue.name
      and coalesce(run_after, enqueued_at) <= now()
      and id not in (select jsonb_array_elements_text(%(passed)s::jsonb)::bigint)
    order by priority desc, coalesce(run_after, enqueued_at), id
    limit 1
    for update skip locked
) as due_run
order by due_run.priority desc, due_run.due, due_run.id
limit 1
