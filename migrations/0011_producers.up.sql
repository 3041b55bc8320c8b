-- SQL alone is enough to enqueue: the server computes the hash of a payload that comes without one.
--
-- reproq_spec_hash gives the name that docs/spec-hash.md defines, from what jsonb holds. So a plain INSERT needs only the
-- payload, and reproq_enqueue also handles a unique key that is held. A run that comes with its hash pays only for the
-- look whether it has one.
--
-- The name of a queue is refused not only in a new run, but also if somebody changes it later. This is a trigger: a CHECK
-- would cost each change of a run's status, and would refuse all changes of runs that have such a name from before.
do $migration$
declare
    function_name text;
begin
    perform pg_advisory_xact_lock(7238251986031521);
    if not exists (select from reproq_schema_migrations where version = 10) then
        raise exception 'migration 11 (producers) needs migration 10 (bounds), which has not been applied';
    end if;
    if exists (select from reproq_schema_migrations where version = 11) then
        return;
    end if;

    -- Whether a positive number is what ECMAScript writes for the double nearest to it: of all decimals that read back
    -- as this double, those with the fewest digits, and of these the nearest. Its value is 0.digits * 10^point, and
    -- `digits` has no zeros at its ends.
    --
    -- The server's own text of a double does not decide it alone. It never is a decimal exactly between two doubles,
    -- which reads back as the even one: the text of 1e23::float8 is 9.999999999999999e+22.
    create function reproq_is_shortest(value numeric, digits text, point integer) returns boolean
    language plpgsql immutable strict parallel safe as $function$
    declare
        -- From here on, no double is nearest: 2^1024 - 2^970.
        huge constant numeric := numeric
            '179769313486231580793728971405303415079934132710037826936173778980444968292764750946649017977587'
            '207096330286416692887910946555547851940402630657488671505820681908902000708383676273854845817711'
            '531764475730270069855571366959622842914819860834936475292719074168444365510704342711559699508093'
            '042880177904174497792';
        -- Up to here, zero is nearest: 2^-1075, without its digits after the 399th. No number here has so many.
        tiny constant numeric := numeric
            '2470328229206232720882843964341106861825299013071623822127928412503377536351e-399';
        count constant integer := length(digits);
        nearest float8;
        below numeric;
        above numeric;
        shortest text;
    begin
        if value >= huge or value <= tiny then
            return false;
        end if;
        nearest := value::float8;
        if count > 1 then
            -- The numbers that read back as one double have no gap. So if a decimal with fewer digits is among them,
            -- one of the two neighbours with one digit less is too.
            below := ('0.' || left(digits, count - 1) || 'e' || point)::numeric;
            above := below + ('1e' || point - count + 1)::numeric;
            if below > tiny and below::float8 = nearest or above < huge and above::float8 = nearest then
                return false;
            end if;
        end if;
        shortest := btrim(replace(split_part(nearest::text, 'e', 1), '.', ''), '0');
        return count < length(shortest) or digits = shortest;
    end;
    $function$;

    -- The canonical text of a number.
    create function reproq_canonical_number(value numeric) returns text
    language plpgsql immutable strict parallel safe as $function$
    declare
        max_digits constant integer := 400;
        sign constant text := case when value < 0 then '-' else '' end;
        literal constant text := abs(value)::text;  -- never with an exponent
        fraction constant text := split_part(literal, '.', 2);
        digits text := ltrim(split_part(literal, '.', 1) || fraction, '0');
        point constant integer := length(digits) - length(fraction);
        count integer;
    begin
        digits := rtrim(digits, '0');
        count := length(digits);
        if count = 0 then
            return '0';
        end if;
        if greatest(point, 1) + greatest(count - point, 0) > max_digits then
            raise exception 'a number of the payload has more than % digits when written out; send a string', max_digits
                using errcode = 'check_violation';
        end if;
        if (point <= -6 or point > 21) and reproq_is_shortest(abs(value), digits, point) then
            return sign || left(digits, 1) || case when count > 1 then '.' || substr(digits, 2) else '' end
                || 'e' || case when point > 0 then '+' else '' end || point - 1;
        end if;
        return sign || case
            when point <= 0 then '0.' || repeat('0', -point) || digits
            when point >= count then digits || repeat('0', point - count)
            else left(digits, point) || '.' || substr(digits, point + 1)
        end;
    end;
    $function$;

    -- Sorts keys by UTF-16 code units, as JavaScript does. UTF-8 has the order of the code points. They differ only in
    -- that the characters from U+E000 to U+FFFF (the bytes 238 and 239) come after those beyond U+FFFF (from byte 240).
    create function reproq_key_order(key text) returns bytea
    language plpgsql immutable strict parallel safe as $function$
    declare
        bytes bytea := convert_to(key, 'UTF8');
    begin
        if octet_length(bytes) > length(key) then
            for place in 0 .. octet_length(bytes) - 1 loop
                if get_byte(bytes, place) in (238, 239) then
                    bytes := set_byte(bytes, place, get_byte(bytes, place) + 10);
                end if;
            end loop;
        end if;
        return bytes;
    end;
    $function$;

    -- The canonical JSON of a part of a document that is inside `depth` arrays and objects. The server writes strings
    -- exactly as RFC 8785 does.
    create function reproq_canonical_json(part jsonb, depth integer) returns text
    language plpgsql immutable strict parallel safe as $function$
    declare
        max_depth constant integer := 100;
        kind constant text := jsonb_typeof(part);
    begin
        if kind = 'number' then
            return reproq_canonical_number(part::numeric);
        elsif kind not in ('object', 'array') then
            return part::text;
        elsif depth >= max_depth then
            raise exception 'more than % arrays and objects of the payload are inside one another; flatten it', max_depth
                using errcode = 'check_violation';
        elsif kind = 'array' then
            return (
                select '[' || coalesce(string_agg(reproq_canonical_json(item, depth + 1), ',' order by place), '') || ']'
                from jsonb_array_elements(part) with ordinality as each (item, place)
            );
        end if;
        return (
            select '{' || coalesce(string_agg(
                    to_jsonb(key)::text || ':' || reproq_canonical_json(member, depth + 1), ','
                    order by reproq_key_order(key)
                ), '') || '}'
            from jsonb_each(part) as each (key, member)
        );
    end;
    $function$;

    create function reproq_spec_hash(payload jsonb) returns text
    language sql immutable strict parallel safe as $function$
        select encode(sha256(convert_to(reproq_canonical_json(payload, 0), 'UTF8')), 'hex')
    $function$;

    create function reproq_hash_spec() returns trigger language plpgsql as $function$
    declare
        max_payload_bytes constant integer := 1048576;
    begin
        -- Here too, before a text of any size is hashed.
        if octet_length(new.payload::text) > max_payload_bytes then
            raise exception 'task_runs.payload is % bytes as text, the limit is %',
                octet_length(new.payload::text), max_payload_bytes
                using errcode = 'check_violation', table = 'task_runs', column = 'payload';
        end if;
        new.spec_hash := reproq_spec_hash(new.payload);
        return new;
    end;
    $function$;

    create trigger task_runs_hash_spec before insert on task_runs
        for each row when (new.spec_hash is null) execute function reproq_hash_spec();

    -- Adds a run in the caller's transaction, by the caller's rights. `created` is false if an unfinished run holds the
    -- unique key: then it is that run. A key may be given back between the two statements.
    create function reproq_enqueue(
        payload jsonb, queue_name text default 'default', priority integer default 0,
        run_after timestamptz default null, max_attempts integer default 3, timeout_seconds float8 default null,
        unique_key text default null,
        out id bigint, out spec_hash text, out created boolean
    ) language plpgsql as $function$
    #variable_conflict use_column
    declare
        max_tries constant integer := 20;
    begin
        for try in 1 .. max_tries loop
            insert into task_runs as run (
                payload, queue_name, priority, run_after, max_attempts, timeout_seconds, unique_key
            )
            values (
                reproq_enqueue.payload, reproq_enqueue.queue_name, reproq_enqueue.priority::smallint,
                reproq_enqueue.run_after, reproq_enqueue.max_attempts, reproq_enqueue.timeout_seconds::real,
                reproq_enqueue.unique_key
            )
            on conflict (unique_key) where unique_key is not null and status in ('PENDING', 'RUNNING') do nothing
            returning run.id, run.spec_hash into reproq_enqueue.id, reproq_enqueue.spec_hash;
            created := found;
            if not created then
                select run.id, run.spec_hash into reproq_enqueue.id, reproq_enqueue.spec_hash
                from task_runs as run
                where run.unique_key = reproq_enqueue.unique_key and run.status in ('PENDING', 'RUNNING');
            end if;
            if found then
                return;
            end if;
        end loop;
        raise exception 'the unique key % was taken and given back % times in a row; try again',
            quote_literal(unique_key), max_tries
            using errcode = 'serialization_failure';
    end;
    $function$;

    create function reproq_check_queue_name() returns trigger language plpgsql as $function$
    begin
        if new.queue_name = ''
            or char_length(new.queue_name) > 128
            or new.queue_name <> btrim(new.queue_name)
            or new.queue_name collate "C" ~ '[[:cntrl:],]'
        then
            raise exception 'task_runs.queue_name must have 1 to 128 characters, no comma, no control character and no '
                'space at an end, not %: no worker could be told to take runs from it',
                quote_literal(left(new.queue_name, 200))
                using errcode = 'check_violation', table = 'task_runs', column = 'queue_name';
        end if;
        return new;
    end;
    $function$;

    -- It fires only for statements that name this column: nothing on the hot path does.
    create trigger task_runs_check_queue_name before update of queue_name on task_runs
        for each row when (new.queue_name is distinct from old.queue_name)
        execute function reproq_check_queue_name();

    -- In the caller's search path, a schema of the caller could stand before ours. The text of a double has all its
    -- digits only if the session does not say otherwise.
    foreach function_name in array array[
        'reproq_spec_hash(jsonb)', 'reproq_hash_spec()', 'reproq_check_queue_name()',
        'reproq_enqueue(jsonb, text, integer, timestamptz, integer, float8, text)'
    ] loop
        execute format('alter function %s set search_path = %I, pg_temp', function_name, current_schema());
    end loop;
    alter function reproq_spec_hash(jsonb) set extra_float_digits = 1;

    -- Also where new functions are nobody's by default: whoever may insert a run may call these. They act by the rights
    -- of the caller.
    grant execute on function
        reproq_is_shortest(numeric, text, integer), reproq_canonical_number(numeric), reproq_key_order(text),
        reproq_canonical_json(jsonb, integer), reproq_spec_hash(jsonb),
        reproq_enqueue(jsonb, text, integer, timestamptz, integer, float8, text)
    to public;

    -- An older release inserts runs with their hashes, and changes no name of a queue.
    insert into reproq_schema_migrations (version, name, works_with_since) values (11, 'producers', 5);
end
$migration$;
