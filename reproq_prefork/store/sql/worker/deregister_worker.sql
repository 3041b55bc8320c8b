-- A worker leaves. It has recorded or handed back what it held. If it still holds a row, the registration stays,
-- so that the sweep finds both. No row is returned then, or if the registration is already gone.
delete from reproq_workers
where id = %(worker_id)s
  and not exists (select from task_runs where leased_by = %(worker_id)s and status = 'RUNNING')
returning id
