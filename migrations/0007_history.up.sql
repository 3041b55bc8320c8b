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

    -- `errors` with one more entry, an object. Where they are many, the first 20 and the last 20 are kept, and between
    -- them an entry that says how many are left out there:
    --     {"kind": "omitted", "omitted": 812, "message": "812 entries are left out here"}
    -- Where they are more than 8 KiB before the new one comes, each text of theirs is cut to 2 KiB; as of all output, the
    -- end is kept. Whatever stands in `errors` is taken, also what others wrote.
    create function reproq_append_error(errors jsonb, entry jsonb) returns jsonb
    language plpgsql immutable parallel safe as $function$
    declare
        kept constant integer := 20;  -- at each end; the paths below say the same
        max_whole_bytes constant integer := 8192;
        max_bytes constant integer := 2048;
        mark constant text := '[...] ';
        omitted numeric := 0;
        place integer;
        older jsonb;
    begin
        errors := errors || '[]';  -- an array, whatever it was; and out of TOAST once, not by each function below
        if jsonb_array_length(errors) < 2 * kept and pg_column_size(errors) <= max_whole_bytes then
            return errors || entry;  -- as nearly always
        end if;
        if errors -> kept ->> 'kind' = 'omitted' and jsonb_typeof(errors -> kept -> 'omitted') = 'number' then
            omitted := (errors -> kept -> 'omitted')::numeric;
            errors := errors - kept;
        end if;
        if jsonb_array_length(errors) >= 2 * kept then
            omitted := omitted + jsonb_array_length(errors) - (2 * kept - 1);
            errors := jsonb_path_query_array(errors, '$[0 to 19]')
                || jsonb_path_query_array(errors, '$[last - 18 to last]');
        end if;
        if pg_column_size(errors) > max_whole_bytes then
            for place, older in
                select each.place - 1, each.older
                from jsonb_array_elements(errors) with ordinality as each (older, place)
                where pg_column_size(each.older) > max_bytes
            loop
                -- A member that is not a string is looked at as text, and so is an entry that is not an object.
                older := case when jsonb_typeof(older) = 'object' then older else jsonb_build_object('error', older) end;
                if exists (
                    select from jsonb_each_text(older) as member where octet_length(member.value) > max_bytes
                ) then
                    older := (
                        select jsonb_object_agg(member.key, coalesce(to_jsonb(mark || shorter.text), member.value))
                        from jsonb_each(older) as member
                        left join lateral (
                            select right(member.value #>> '{}', chars) as text
                            from unnest(array[2042, 1021, 680, 510]) as chars  -- of one to four bytes each
                            where octet_length(member.value #>> '{}') > max_bytes
                              and octet_length(right(member.value #>> '{}', chars)) <= max_bytes - octet_length(mark)
                            order by chars desc
                            limit 1
                        ) as shorter on true
                    );
                    errors := jsonb_set(errors, array[place::text], older);
                end if;
            end loop;
        end if;
        if omitted > 0 then
            older := jsonb_build_object(
                'kind', 'omitted', 'omitted', omitted, 'message', omitted || ' entries are left out here'
            );
            errors := jsonb_insert(errors, array[kept::text], older);
        end if;
        return errors || entry;
    end;
    $function$;

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

    execute format('alter function reproq_append_error(jsonb, jsonb) set search_path = %I, pg_temp', current_schema());
    execute format('alter function reproq_older_workers(text[]) set search_path = %I, pg_temp', current_schema());

    -- Also where new functions are nobody's by default: whoever may change a run may call these.
    grant execute on function
        reproq_append_error(jsonb, jsonb), reproq_append_worker(text[], text), reproq_older_workers(text[])
    to public;

    insert into reproq_schema_migrations (version, name, works_with_since) values (7, 'history', 5);
end
$migration$;
