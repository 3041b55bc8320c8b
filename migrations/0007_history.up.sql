-- What a run remembers of its attempts, bounded: the first 20 and the last 20 of them, and how many are left out.
--
-- Whoever adds to `errors` or `worker_ids` does it by these functions. Without a bound a run with a thousand attempts
-- and 64 KiB of output each grew to 65 MB, and each attempt wrote all of it to the log once more.
do $migration$
begin
    perform pg_advisory_xact_lock(7238251986031521);
    if not exists (select from reproq_schema_migrations where version = 6) then
        raise exception 'migration 7 (history) needs migration 6 (roles), which has not been applied';
    end if;
    if exists (select from reproq_schema_migrations where version = 7) then
        return;
    end if;

    -- What is kept of `errors` when one more entry comes: 39 at most, each text of theirs of 2 KiB at most, and between
    -- the 20th and the next one an entry that says how many are left out there:
    --     {"kind": "omitted", "omitted": 812, "message": "812 entries are left out here"}
    -- Of a longer text its end is kept, as of all output. Whatever stands in `errors` is taken, also what others wrote.
    create function reproq_older_errors(errors jsonb) returns jsonb
    language plpgsql immutable parallel safe as $function$
    declare
        kept constant integer := 20;  -- at each end; the paths below say the same
        max_bytes constant integer := 2048;
        mark constant text := '[...] ';
        omitted numeric := 0;
        place integer;
        entry jsonb;
    begin
        errors := errors || '[]';  -- an array, whatever it was; and out of TOAST once, not by each function below
        if errors -> kept ->> 'kind' = 'omitted' and jsonb_typeof(errors -> kept -> 'omitted') = 'number' then
            omitted := (errors -> kept -> 'omitted')::numeric;
            errors := errors - kept;
        end if;
        if jsonb_array_length(errors) >= 2 * kept then
            omitted := omitted + jsonb_array_length(errors) - (2 * kept - 1);
            errors := jsonb_path_query_array(errors, '$[0 to 19]')
                || jsonb_path_query_array(errors, '$[last - 18 to last]');
        end if;
        for place, entry in
            select each.place - 1, each.entry
            from jsonb_array_elements(errors) with ordinality as each (entry, place)
            where octet_length(each.entry::text) > max_bytes
        loop
            -- A member that is not a string is looked at as text, and so is an entry that is not an object.
            entry := case when jsonb_typeof(entry) = 'object' then entry else jsonb_build_object('error', entry) end;
            if exists (select from jsonb_each_text(entry) as member where octet_length(member.value) > max_bytes) then
                entry := (
                    select jsonb_object_agg(member.key, coalesce(to_jsonb(mark || shorter.text), member.value))
                    from jsonb_each(entry) as member
                    left join lateral (
                        select right(member.value #>> '{}', chars) as text
                        from unnest(array[2042, 1021, 680, 510]) as chars  -- of one to four bytes each
                        where octet_length(member.value #>> '{}') > max_bytes
                          and octet_length(right(member.value #>> '{}', chars)) <= max_bytes - octet_length(mark)
                        order by chars desc
                        limit 1
                    ) as shorter on true
                );
                errors := jsonb_set(errors, array[place::text], entry);
            end if;
        end loop;
        if omitted > 0 then
            entry := jsonb_build_object(
                'kind', 'omitted', 'omitted', omitted, 'message', omitted || ' entries are left out here'
            );
            errors := jsonb_insert(errors, array[kept::text], entry);
        end if;
        return errors;
    end;
    $function$;

    -- `errors` with one more entry, an object. Few and short ones, as nearly always, are looked at and nothing else. A
    -- single expression, so the planner puts it in place of the call; its names were looked up when it was made.
    create function reproq_append_error(errors jsonb, entry jsonb) returns jsonb
    language sql immutable parallel safe
        return case
            when case
                when jsonb_typeof(errors) = 'array'
                then jsonb_array_length(errors) < 40 and octet_length(errors::text) <= 2048
            end then errors
            else reproq_older_errors(errors)
        end || entry;

    -- The same of `worker_ids`: 39 at most when one more comes. `attempts` says how many there were.
    create function reproq_older_workers(worker_ids text[]) returns text[]
    language plpgsql immutable parallel safe as $function$
    begin
        worker_ids := array(select unnest(worker_ids));  -- of one dimension, and counted from 1
        if cardinality(worker_ids) < 40 then
            return worker_ids;
        end if;
        return worker_ids[:20] || worker_ids[cardinality(worker_ids) - 18:];
    end;
    $function$;

    create function reproq_append_worker(worker_ids text[], worker_id text) returns text[]
    language sql immutable parallel safe
        return case
            when cardinality(worker_ids) = 0 then array[worker_id]
            when cardinality(worker_ids) < 40 and array_ndims(worker_ids) = 1 and array_lower(worker_ids, 1) = 1
            then worker_ids || worker_id
            else reproq_older_workers(worker_ids) || worker_id
        end;

    execute format('alter function reproq_older_errors(jsonb) set search_path = %I, pg_temp', current_schema());
    execute format('alter function reproq_older_workers(text[]) set search_path = %I, pg_temp', current_schema());

    -- Also where new functions are nobody's by default: whoever may change a run may call these.
    grant execute on function
        reproq_older_errors(jsonb), reproq_append_error(jsonb, jsonb),
        reproq_older_workers(text[]), reproq_append_worker(text[], text)
    to public;

    insert into reproq_schema_migrations (version, name, works_with_since) values (7, 'history', 5);
end
$migration$;
