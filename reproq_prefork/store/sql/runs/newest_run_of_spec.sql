-- The newest run of a spec: one step from the end of its part of reproq_specs. Two specs may have the same key. So
-- if the run found has another hash, it goes on to the run before.
with recursive newest as (
    (
        select run_id
        from reproq_specs
        where spec_key = reproq_spec_key(%(spec_hash)s::text)
        order by run_id desc
        limit 1
    )
    union all
    select before.run_id
    from newest
    cross join lateral (
        select run_id
        from reproq_specs
        where spec_key = reproq_spec_key(%(spec_hash)s::text) and run_id < newest.run_id
        order by run_id desc
        limit 1
    ) as before
    where not exists (select from task_runs where id = newest.run_id and spec_hash = %(spec_hash)s::text)
)
select run.id
from newest
join task_runs as run on run.id = newest.run_id
where run.spec_hash = %(spec_hash)s::text
