-- Which runs these workers hold that somebody has cancelled. Asked once a poll interval and at each notification;
-- task_runs_to_cancel has an entry for each such run and for no other, so it is nearly always empty.
select leased_by, id, claims
from task_runs
where status = 'RUNNING'
  and cancel_requested_at is not null
  and leased_by in (select jsonb_array_elements_text(%(worker_ids)s::jsonb))
