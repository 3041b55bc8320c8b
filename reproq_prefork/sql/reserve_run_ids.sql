-- Ids for rows that will come by COPY, which gives none back, and the clock that `enqueued_at` will have. No row
-- comes back where the role may insert, and may not draw from the sequence itself: an identity needs no such grant.
select nextval(sequence.name::regclass) as id, now() as moment
from (select pg_get_serial_sequence('task_runs', 'id') as name) as sequence
cross join generate_series(1, %(runs)s::integer)
where has_sequence_privilege(sequence.name, 'USAGE')
