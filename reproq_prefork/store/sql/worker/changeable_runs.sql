-- Which runs of a worker could be written at this moment? Sent after the server has refused to record the end of
-- one of them.
--
-- A run that is not returned is no longer held by this claim. `is_free` is false if another session has locked the
-- row; SKIP LOCKED does not wait for it. The lock taken here is the lock of an UPDATE. It ends with the statement,
-- and fires no trigger.
with held as (
    select run.id, run.claims, run.task_path, run.cancel_requested_at is not null as is_cancelled
    from jsonb_to_recordset(%(tokens)s::jsonb) as token (id bigint, claim bigint)
    join task_runs as run on run.id = token.id and run.claims = token.claim and run.status = 'RUNNING'
),
free as (
    select run.id
    from task_runs as run
    where run.id in (select id from held)
    for no key update of run skip locked
)
select
    held.id, held.claims, held.task_path, held.is_cancelled,
    held.id in (select id from free) as is_free
from held
