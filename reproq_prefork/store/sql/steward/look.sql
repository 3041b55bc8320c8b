-- What a steward looks for once a poll interval, for its whole host and in one statement: is a run due, is there an
-- end that the application is to be told of, and which runs of its workers has somebody cancelled. One row, or one
-- for each of these runs.
--
-- Due runs: it steps from priority to priority as the claim does, so rows scheduled for later cost one descent a
-- priority. Ends: the same walk as in take_finish_due, without a lock, and none where runs are due, for a worker
-- tells of ends between them. Cancels: task_runs_to_cancel has an entry for each such run and for no other.
--
-- This is what a steward sends most often, and it only reads. So it says whether the server still writes: one that was
-- demoted answers for ever that nothing is due. And how full the queue of notifications is: one for the whole server,
-- and where it is full, nobody can announce anything.
select
    due.runs_are_due, due.is_finish_due, cancelled.leased_by, cancelled.id, cancelled.claims,
    current_setting('transaction_read_only')::boolean as is_read_only,
    pg_notification_queue_usage() as announced_share
from (
    select
        found.runs_are_due,
        case
            when found.runs_are_due or not %(announces)s::boolean then false
            else exists (
                select
                from task_runs
                where finish_due_at between now() - interval '7 days' and now()
                  and finished_at > now() - interval '7 days'
                  and queue_name = any (string_to_array(%(queues)s, ','))
            )
        end as is_finish_due
    from (
        select exists (
            select
            from unnest(string_to_array(%(queues)s, ',')) as queue (name)
            where exists (
                with recursive level as (
                    (
                        select priority, coalesce(run_after, enqueued_at) as first_due
                        from task_runs
                        where status = 'PENDING' and queue_name = queue.name
                        order by queue_name, priority desc, coalesce(run_after, enqueued_at)
                        limit 1
                    )
                    union all
                    select lower.priority, lower.first_due
                    from level
                    cross join lateral (
                        select priority, coalesce(run_after, enqueued_at) as first_due
                        from task_runs
                        where status = 'PENDING' and queue_name = queue.name and priority < level.priority
                        order by queue_name, priority desc, coalesce(run_after, enqueued_at)
                        limit 1
                    ) as lower
                )
                select from level where level.first_due <= now()
            )
        ) as runs_are_due
    ) as found
) as due
left join (
    select leased_by, id, claims
    from task_runs
    where status = 'RUNNING'
      and cancel_requested_at is not null
      and leased_by in (select jsonb_array_elements_text(%(worker_ids)s::jsonb))
) as cancelled on true
