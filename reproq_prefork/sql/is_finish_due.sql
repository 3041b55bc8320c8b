-- Is there an end to tell of? The same walk as in take_finish_due, without a lock.
select exists (
    select
    from task_runs
    where finish_due_at between now() - interval '7 days' and now()
      and finished_at > now() - interval '7 days'
      and queue_name = any (string_to_array(%(queues)s, ','))
) as is_due
