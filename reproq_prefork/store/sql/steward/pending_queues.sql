-- For tests: the queues with PENDING runs.
select distinct queue_name as name from task_runs where status = 'PENDING' order by name
