-- The runs that re-run this one. There is no index for that: they have its spec, so they are looked for among
-- the first max_runs later ones of that spec.
select id, status
from (
    select id, status, replay_of
    from task_runs
    where left(spec_hash, 16) between left(%(spec_hash)s::text, 16) and left(%(spec_hash)s::text, 16)
      and id > %(run_id)s::bigint
    order by left(spec_hash, 16), id
    limit %(max_runs)s::bigint
) as later
where replay_of = %(run_id)s::bigint
order by id
