-- The run that a claim would take next, without the `passed` ones. Sent only after the server refused to claim
-- many, to find the run that it refuses. Not sent otherwise, since it also reads the runs of higher priorities
-- that are scheduled for later. Runs that others are claiming are locked, and skipped.
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
