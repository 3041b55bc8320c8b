-- What a COPY does not give back: ids, as text with commas, in which they grow; the clock that `enqueued_at` will
-- have; and of numbers of seconds, an array, what four bytes keep of each. No row comes back where the role may
-- insert, and may not draw from the sequence itself: an identity needs no such grant.
select
    now() as moment,
    (
        select string_agg(nextval(sequence.name::regclass)::text, ',' order by place)
        from generate_series(1, %(runs)s::integer) as place
    ) as ids,
    (
        select jsonb_agg(given.seconds::real order by given.place)::text
        from jsonb_array_elements_text(%(seconds)s::jsonb) with ordinality as given (seconds, place)
    ) as kept_seconds
from (select pg_get_serial_sequence('task_runs', 'id') as name) as sequence
where has_sequence_privilege(sequence.name, 'USAGE')
