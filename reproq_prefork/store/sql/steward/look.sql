-- What a steward asks once a poll interval, for its whole host and in one statement. Is a run due? Is there an end
-- to announce to the application? Which runs of its workers were cancelled? It returns one row, or one for each
-- cancelled run.
--
-- Due runs: it steps from priority to priority as the claim does, so rows scheduled for later cost one index
-- descent per priority. Ends: the same walk as in take_finish_due, without a lock. It is skipped if runs are due,
-- because workers announce ends between runs. Cancels: task_runs_to_cancel has an entry for each cancelled run and
-- for no other.
--
-- A steward sends this statement more often than any other, and it only reads. So it also returns whether the
-- server accepts writes: a demoted server would answer for ever that nothing is due. And it returns how full the
-- queue of notifications is. There is one for the whole server, and if it is full, nobody can notify.
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
            from unnest(string_to_array(%(queues)s, ',')) as queue (queue_name)
            where exists (
                with recursive {{first_due_of_levels}}
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
