-- The newest run of a spec: one step from the end of its part of task_runs_spec, which has the first 16
-- digits and the id. The whole hash is compared too, since two specs may share those digits.
-- BETWEEN the same value twice, not `=`: with an equality the planner drops those digits from the order, and
-- where a spec seems frequent it then walks back through all newer runs by their primary key.
select id
from task_runs
where left(spec_hash, 16) between left(%(spec_hash)s::text, 16) and left(%(spec_hash)s::text, 16)
  and spec_hash = %(spec_hash)s::text
order by left(spec_hash, 16) desc, id desc
limit 1
