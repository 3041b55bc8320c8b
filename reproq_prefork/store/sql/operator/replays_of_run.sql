-- The replays of this run. There is no index for them. But they have the same spec, so this reads the first
-- max_runs later runs of that spec.
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
