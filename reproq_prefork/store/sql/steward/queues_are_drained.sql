-- `--drain`: no run of these queues is running, due, or waiting for a retry. A run that is scheduled for later and
-- was never tried does not count.
select not exists (
    select
    from task_runs
    where queue_name = any (string_to_array(%(queues)s, ','))
      and (
          status = 'RUNNING'
          or (status = 'PENDING' and (attempts > 0 or coalesce(run_after, enqueued_at) <= now()))
      )
) as drained
