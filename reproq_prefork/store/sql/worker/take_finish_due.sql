-- A run of these queues whose end the application is to be told of; whoever takes it has a minute for that, then
-- it is due again. So it is told at least once, and hardly ever twice. SKIP LOCKED: two workers never wait
-- for each other. It walks task_runs_finish_due, from a week ago on: what nobody has told by then is no news, and
-- where no worker of the queue tells anybody, what piles up is stepped over.
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
