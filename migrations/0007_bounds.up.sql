-- What a run may hold: the limits of the API, for whoever writes the table.
--
-- A worker reads a row only after it has claimed it, so a value that cannot be read or used is met when others depend
-- on it. The CHECKs get the limits of the API. Each of them costs every UPDATE some 4 microseconds, for PostgreSQL
-- makes them anew for each statement, so there are no more of them than before: names, times and what only a worker
-- may say of a run are looked at once, where it is inserted, by the trigger that looks at its hash.
--
-- Rows that break the limits are put within them here. Of those that wait, the ones that no worker could take are FAILED.
do $migration$
declare
    first_moment constant timestamptz := '0002-01-01 UTC';
    last_moment constant timestamptz := '9998-12-31 23:59:59.999999+00';
    function_name text;
    repaired bigint;
    failed bigint;
begin
    perform pg_advisory_xact_lock(7238251986031521);
    if not exists (select from reproq_schema_migrations where version = 6) then
        raise exception 'migration 7 (bounds) needs migration 6 (roles), which has not been applied';
    end if;
    if exists (select from reproq_schema_migrations where version = 7) then
        return;
    end if;

    -- At once what the end of this needs: no row may come between the repair and the CHECKs.
    lock table task_runs in access exclusive mode;

    -- greatest and least pass over a null, which stays one here.
    update task_runs
    set max_attempts = least(greatest(max_attempts, 1), 1000),
        timeout_seconds = case
            when timeout_seconds is not null then least(greatest(timeout_seconds, 0), 31536000)
        end,
        retry_base_seconds = case
            when retry_base_seconds is not null then least(greatest(retry_base_seconds, 0), 31536000)
        end,
        retry_max_seconds = case
            when retry_max_seconds is not null then least(greatest(retry_max_seconds, 0), 31536000)
        end,
        run_after = case
            when run_after is not null then least(greatest(run_after, first_moment), last_moment)
        end,
        enqueued_at = least(greatest(enqueued_at, first_moment), last_moment),
        attempts = greatest(attempts, 0),
        claims = greatest(claims, 0),
        worker_ids = array(
            select worker_id
            from unnest(worker_ids) with ordinality as attempt (worker_id, place)
            where worker_id is not null
            order by place
        )
    where max_attempts not between 1 and 1000
       or timeout_seconds not between 0 and 31536000
       or retry_base_seconds not between 0 and 31536000
       or retry_max_seconds not between 0 and 31536000
       or run_after not between first_moment and last_moment
       or enqueued_at not between first_moment and last_moment
       or attempts < 0
       or claims < 0
       or array_ndims(worker_ids) > 1
       or array_position(worker_ids, null) is not null;
    get diagnostics repaired = row_count;
    if repaired > 0 then
        raise notice '% runs had values out of range, and have the nearest ones that are allowed', repaired;
    end if;

    update task_runs
    set status = 'FAILED',
        errors = case when jsonb_typeof(errors) = 'array' then errors else '[]' end || jsonb_build_object(
            'kind', 'unreadable', 'message', 'no worker can take this run: its queue has no valid name, its id is 0, '
                'or its attempts or claims cannot be counted any further', 'ended_at', now()
        ),
        finished_at = now(),
        finish_due_at = case when task_path is not null then now() end
    where status = 'PENDING'
      and (
          queue_name = ''
          or char_length(queue_name) > 128
          or queue_name <> btrim(queue_name)
          or queue_name collate "C" ~ '[[:cntrl:],]'
          or id = 0
          or attempts = 2147483647
          or claims = 9223372036854775807
      );
    get diagnostics failed = row_count;
    if failed > 0 then
        raise notice '% runs that no worker could take are FAILED', failed;
    end if;

    alter table task_runs
        drop constraint if exists task_runs_run_after_finite,
        drop constraint if exists task_runs_max_attempts_positive,
        drop constraint if exists task_runs_timeout_finite,
        drop constraint if exists task_runs_retry_base_finite,
        drop constraint if exists task_runs_retry_max_finite,
        add constraint task_runs_run_after_range
            check (run_after >= '0002-01-01 UTC' and run_after < '9999-01-01 UTC'),
        add constraint task_runs_max_attempts_range check (max_attempts between 1 and 1000),
        add constraint task_runs_timeout_range check (timeout_seconds between 0 and 31536000),
        add constraint task_runs_retry_base_range check (retry_base_seconds between 0 and 31536000),
        add constraint task_runs_retry_max_range check (retry_max_seconds between 0 and 31536000);

    -- pg_dump and pg_restore turn both of these settings off in their sessions, and nobody else does. Whoever restores
    -- in another way sets reproq.restore.
    create function reproq_is_restoring() returns boolean language sql stable as $function$
        select lower(coalesce(current_setting('reproq.restore', true), '')) in ('on', 'true', 'yes', '1')
            or (current_setting('check_function_bodies') = 'off' and current_setting('row_security') = 'off')
    $function$;

    create or replace function reproq_receive_new_runs() returns trigger language plpgsql as $function$
    declare
        max_payload_bytes constant integer := 1048576;
        refused task_runs;
    begin
        -- One look at the new rows for all that is refused. btrim is a scan of bytes: a regular expression takes ten
        -- times as long, and asks the collation what [a-f] is. The payload as text, since that is what a worker reads:
        -- 1e131071 is eight bytes in jsonb and 131,072 in text.
        select *
        into refused
        from new_runs
        where octet_length(spec_hash) <> 64
           or btrim(spec_hash, '0123456789abcdef') <> ''
           or octet_length(payload::text) > max_payload_bytes
           or (
                queue_name <> 'default'
                and (
                    queue_name = ''
                    or char_length(queue_name) > 128
                    or queue_name <> btrim(queue_name)
                    or queue_name collate "C" ~ '[[:cntrl:],]'
                )
           )
           or unique_key = ''
           or octet_length(unique_key) > 1024
           or id < 1
           or enqueued_at < '0002-01-01 UTC'
           or enqueued_at >= '9999-01-01 UTC'
           or status <> 'PENDING'
           or attempts <> 0
           or claims <> 0
           or cardinality(worker_ids) <> 0
           or errors <> '[]'
           or leased_by is not null
           or lease_expires_at is not null
           or result is not null
           or started_at is not null
           or last_attempted_at is not null
           or finished_at is not null
           or cancel_requested_at is not null
           or metadata is not null
           or last_attempt is not null
           or finish_due_at is not null
        limit 1;
        if found and reproq_is_restoring() then
            -- It was in the table before, or in another one like it: what makes a run unreadable is refused all the same.
            select *
            into refused
            from new_runs
            where octet_length(spec_hash) <> 64
               or btrim(spec_hash, '0123456789abcdef') <> ''
               or octet_length(payload::text) > max_payload_bytes
            limit 1;
        end if;
        if found then
            perform reproq_refuse_new_run(refused, max_payload_bytes);
        end if;

        -- One message a queue and statement; the server folds equal ones of a transaction into one. Who wants to be
        -- told of a queue shares the advisory lock of its name: nobody does where this lock can be had alone. It is
        -- given back at once, in the same expression, so that nothing can come between. Two who try at the same
        -- moment may find each other, and then send what nobody hears.
        perform pg_notify('reproq_task_runs', left(due.queue_name, 200))
        from (
            select distinct queue_name
            from new_runs
            where status = 'PENDING' and (run_after is null or run_after <= now())
        ) as due
        where case
            when pg_try_advisory_lock(7238251, hashtext(due.queue_name))
            then not pg_advisory_unlock(7238251, hashtext(due.queue_name))
            else true
        end;
        return null;
    end;
    $function$;

    -- Why this row is refused, as one sentence for whoever inserts it.
    create function reproq_refuse_new_run(refused task_runs, max_payload_bytes integer) returns void
    language plpgsql as $function$
    declare
        payload_bytes constant integer := octet_length(refused.payload::text);
        given text;
    begin
        if payload_bytes > max_payload_bytes then
            raise exception 'task_runs.payload is % bytes as text, the limit is %', payload_bytes, max_payload_bytes
                using errcode = 'check_violation', table = 'task_runs', column = 'payload';
        elsif octet_length(refused.spec_hash) <> 64 or btrim(refused.spec_hash, '0123456789abcdef') <> '' then
            raise exception 'task_runs.spec_hash must be 64 lower-case hexadecimal digits, not %',
                quote_literal(left(refused.spec_hash, 80))
                using errcode = 'check_violation', table = 'task_runs', column = 'spec_hash';
        elsif refused.id < 1 then
            raise exception 'task_runs.id must be 1 or more, not %', refused.id
                using errcode = 'check_violation', table = 'task_runs', column = 'id';
        elsif refused.unique_key = '' or octet_length(refused.unique_key) > 1024 then
            raise exception 'task_runs.unique_key must be null or of 1 to 1024 bytes, not %; use a hash of it',
                octet_length(refused.unique_key)
                using errcode = 'check_violation', table = 'task_runs', column = 'unique_key';
        elsif refused.enqueued_at < '0002-01-01 UTC' or refused.enqueued_at >= '9999-01-01 UTC' then
            raise exception 'task_runs.enqueued_at must be in the years 2 to 9998, not %', refused.enqueued_at
                using errcode = 'check_violation', table = 'task_runs', column = 'enqueued_at';
        end if;
        select string_agg(said.name, ', ')
        into given
        from (
            values
                ('status', refused.status <> 'PENDING'),
                ('attempts', refused.attempts <> 0),
                ('claims', refused.claims <> 0),
                ('leased_by', refused.leased_by is not null),
                ('lease_expires_at', refused.lease_expires_at is not null),
                ('worker_ids', cardinality(refused.worker_ids) <> 0),
                ('result', refused.result is not null),
                ('errors', refused.errors <> '[]'),
                ('started_at', refused.started_at is not null),
                ('last_attempted_at', refused.last_attempted_at is not null),
                ('finished_at', refused.finished_at is not null),
                ('cancel_requested_at', refused.cancel_requested_at is not null),
                ('metadata', refused.metadata is not null),
                ('last_attempt', refused.last_attempt is not null),
                ('finish_due_at', refused.finish_due_at is not null)
        ) as said (name, is_so)
        where said.is_so;
        if given is null then
            raise exception 'task_runs.queue_name must have 1 to 128 characters, no comma, no control character and no '
                'space at an end, not %: no worker could be told to take runs from it',
                quote_literal(left(refused.queue_name, 200))
                using errcode = 'check_violation', table = 'task_runs', column = 'queue_name';
        end if;
        raise exception 'a new run is PENDING and has not been attempted yet: leave out %', given
            using errcode = 'check_violation', table = 'task_runs',
                hint = 'Only a restore inserts runs as they were: pg_restore, or a session with reproq.restore = on.';
    end;
    $function$;

    -- pg_dump restores with an empty search path, and in the caller's a schema of the caller could stand before ours.
    foreach function_name in array array[
        'reproq_is_restoring()', 'reproq_receive_new_runs()', 'reproq_refuse_new_run(task_runs, integer)'
    ] loop
        execute format('alter function %s set search_path = %I, pg_temp', function_name, current_schema());
    end loop;

    -- What an older release writes is within these limits, and it may change the rows as before.
    insert into reproq_schema_migrations (version, name, works_with_since) values (7, 'bounds', 5);
end
$migration$;
