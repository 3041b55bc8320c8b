-- Takes a run of these queues whose end must be announced to the application. The worker that takes it has a
-- minute to announce it; then it is due again. So each end is announced at least once, and rarely twice. SKIP
-- LOCKED: two workers never wait for each other. It walks task_runs_finish_due, back to a week ago: an older end
-- is too old to be useful. And if no worker of the queue announces ends, the growing pile is skipped.
update task_runs
set finish_due_at = now() + make_interval(secs => %(again_seconds)s::float8)
where id = (
    select id
    from task_runs
    where finish_due_at between now() - interval '7 days' and now()
      and finished_at > now() - interval '7 days'
      and queue_name = any (string_to_array(%(queues)s, ','))
    order by finish_due_at
    limit 1
    for update skip locked
)
returning id
