-- Registrations whose lease is long past and that hold nothing any more.
delete from reproq_workers as worker
where worker.lease_expires_at < now() - interval '1 minute'
  and not exists (select from task_runs where leased_by = worker.id and status = 'RUNNING')
