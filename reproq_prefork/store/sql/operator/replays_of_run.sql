-- The runs that re-run this one. There is no index for that: they have its spec, so they are looked for among
-- the first max_runs later ones of that spec.
select run.id, run.status
from (
    select run_id
    from reproq_specs
    where spec_key = reproq_spec_key(%(spec_hash)s::text) and run_id > %(run_id)s::bigint
    order by run_id
    limit %(max_runs)s::bigint
) as later
join task_runs as run on run.id = later.run_id
where run.replay_of = %(run_id)s::bigint
order by run.id
