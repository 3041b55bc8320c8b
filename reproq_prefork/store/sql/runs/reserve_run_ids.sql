-- What a COPY does not return. `ids`: text with commas, in growing order. `moment`: the time that `enqueued_at`
-- will have. `kept_seconds`: an array with each number of seconds as four bytes store it. No row is returned if
-- the role may insert but may not use the sequence itself: an identity column does not need that grant.
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
