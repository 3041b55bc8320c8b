-- Counts the PENDING and RUNNING runs that match, and returns the ids of the newest of them. The caller then
-- cancels them batch by batch. Each status has its own partial index: two branches use both indexes, an OR would
-- use neither. One call returns the ids for many batches, because each call walks all matching runs. With one call
-- per batch, it would walk the dead entries of the cancelled runs again and again.
with matching as materialized (
    select id
    from task_runs
    where status = 'PENDING'
      and %(pending)s::boolean
      and {{is_selected}}
    union all
    select id
    from task_runs
    where status = 'RUNNING'
      and %(running)s::boolean
      and {{is_selected}}
)
select
    (select count(*) from matching) as matching,
    array(select id from matching order by id desc limit %(max_runs)s::bigint) as ids
