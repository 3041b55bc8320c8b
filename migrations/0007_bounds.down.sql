do $migration$
begin
    perform pg_advisory_xact_lock(7238251986031521);
    if not exists (
        select from pg_class where relname = 'reproq_schema_migrations' and pg_table_is_visible(oid)
    ) then
        return;
    end if;
    if not exists (select from reproq_schema_migrations where version = 7) then
        return;
    end if;
    if exists (select from reproq_schema_migrations where version > 7) then
        raise exception 'migration 7 (bounds) cannot be taken back before the ones that came after it';
    end if;

    -- As the fourth migration has it.
    create or replace function reproq_receive_new_runs() returns trigger language plpgsql as $function$
    declare
        max_payload_bytes constant integer := 1048576;
        refused record;
    begin
        -- btrim is a scan of bytes: a regular expression takes ten times as long, and asks the collation what
        -- [a-f] is. The payload as text, since that is what a worker reads: 1e131071 is eight bytes in jsonb and
        -- 131,072 in text.
        select spec_hash, octet_length(payload::text) as payload_bytes
        into refused
        from new_runs
        where octet_length(spec_hash) <> 64
           or btrim(spec_hash, '0123456789abcdef') <> ''
           or octet_length(payload::text) > max_payload_bytes
        limit 1;
        if found and refused.payload_bytes > max_payload_bytes then
            raise exception 'task_runs.payload is % bytes as text, the limit is %',
                refused.payload_bytes, max_payload_bytes
                using errcode = 'check_violation', table = 'task_runs', column = 'payload';
        elsif found then
            raise exception 'task_runs.spec_hash must be 64 lower-case hexadecimal digits, not %',
                quote_literal(left(refused.spec_hash, 80))
                using errcode = 'check_violation', table = 'task_runs', column = 'spec_hash';
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

    alter function reproq_receive_new_runs() reset search_path;
    drop function if exists reproq_refuse_new_run(task_runs, integer);
    drop function if exists reproq_is_restoring();

    -- The limits that were there before are wider, so every row is within them.
    alter table task_runs
        drop constraint if exists task_runs_run_after_range,
        drop constraint if exists task_runs_max_attempts_range,
        drop constraint if exists task_runs_timeout_range,
        drop constraint if exists task_runs_retry_base_range,
        drop constraint if exists task_runs_retry_max_range,
        add constraint task_runs_run_after_finite check (isfinite(run_after)),
        add constraint task_runs_max_attempts_positive check (max_attempts >= 1),
        add constraint task_runs_timeout_finite check (timeout_seconds >= 0 and timeout_seconds < 'infinity'),
        add constraint task_runs_retry_base_finite
            check (retry_base_seconds >= 0 and retry_base_seconds < 'infinity'),
        add constraint task_runs_retry_max_finite
            check (retry_max_seconds >= 0 and retry_max_seconds < 'infinity');

    delete from reproq_schema_migrations where version = 7;
end
$migration$;
