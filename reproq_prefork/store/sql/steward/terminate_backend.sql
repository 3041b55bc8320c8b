-- Ends the server's process of a dead worker and tells whether it is still there. Until it is gone
-- it may yet commit the claim its client sent last. The start time tells it from a later process
-- with the same pid. Only of this database: one that was restored from a dump of another may have the rows of its
-- workers, whose processes of the same server are at work.
select pg_terminate_backend(activity.pid) as signalled
from reproq_workers as worker
join pg_stat_activity as activity
    on activity.pid = worker.backend_pid and activity.backend_start = worker.backend_started
where worker.id = %(worker_id)s
  and activity.pid <> pg_backend_pid()
  and activity.datname = current_database()
