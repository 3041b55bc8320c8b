-- For tests: the queues that hold anything at all to be run.
select distinct queue_name as name from task_runs where status = 'PENDING' order by name
