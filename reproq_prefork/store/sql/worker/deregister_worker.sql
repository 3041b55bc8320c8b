-- A worker leaves. It has finished or handed back what it held; a row it still holds keeps the
-- registration, so that the sweep finds both. No row comes back then, or where the registration is gone already.
delete from reproq_workers
where id = %(worker_id)s
  and not exists (select from task_runs where leased_by = %(worker_id)s and status = 'RUNNING')
returning id
