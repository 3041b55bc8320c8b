-- Ends the server process of a dead worker. A row means that it is still there: until it is gone, it may still
-- commit the last claim of its client. The start time tells it from a later process with the same pid. Only
-- processes of this database are ended: a database restored from a dump of another may have the rows of that one's
-- workers, and their processes may be at work on the same server.
select pg_terminate_backend(activity.pid) as signalled
from reproq_workers as worker
join pg_stat_activity as activity
    on activity.pid = worker.backend_pid and activity.backend_start = worker.backend_started
where worker.id = %(worker_id)s
  and activity.pid <> pg_backend_pid()
  and activity.datname = current_database()
