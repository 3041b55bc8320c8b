do $migration$
begin
    perform pg_advisory_xact_lock(7238251986031521);
    if not exists (
        select from pg_class where relname = 'reproq_schema_migrations' and pg_table_is_visible(oid)
    ) then
        return;
    end if;
    if not exists (select from reproq_schema_migrations where version = 4) then
        return;
    end if;
    if exists (select from reproq_schema_migrations where version > 4) then
        raise exception 'migration 4 (speed) cannot be taken back before the ones that came after it';
    end if;

    drop trigger if exists task_runs_receive_new_runs on task_runs;
    drop function if exists reproq_receive_new_runs();

    -- From here on as the first migration has it; but the column comes to stand behind the others.
    drop trigger if exists task_runs_refuse_changed_spec on task_runs;
    drop trigger if exists task_runs_name_task on task_runs;
    drop function if exists reproq_name_task();

    alter table task_runs drop column task_path;
    alter table task_runs add column task_path text generated always as (
        case
            when payload -> 'v' = '1' and jsonb_typeof(payload -> 'task') = 'string'
            then payload ->> 'task'
        end
    ) stored;

    create or replace function reproq_refuse_changed_spec() returns trigger language plpgsql as $function$
    begin
        if new.payload::text is distinct from old.payload::text or new.spec_hash is distinct from old.spec_hash then
            raise exception 'task_runs.payload and task_runs.spec_hash of run % are immutable', old.id
                using errcode = 'integrity_constraint_violation', table = 'task_runs';
        end if;
        return null;
    end;
    $function$;

    create trigger task_runs_refuse_changed_spec after update of payload, spec_hash on task_runs
        for each row execute function reproq_refuse_changed_spec();

    create function reproq_check_new_run() returns trigger language plpgsql as $function$
    declare
        max_payload_bytes constant integer := 1048576;
    begin
        if new.spec_hash !~ '^[0-9a-f]{64}$' then
            raise exception 'task_runs.spec_hash must be 64 lower-case hexadecimal digits, not %',
                quote_literal(left(new.spec_hash, 80))
                using errcode = 'check_violation', table = 'task_runs', column = 'spec_hash';
        end if;
        -- As text, since that is what a worker reads: 1e131071 is eight bytes in jsonb and 131,072 in text.
        if octet_length(new.payload::text) > max_payload_bytes then
            raise exception 'task_runs.payload is % bytes as text, the limit is %',
                octet_length(new.payload::text), max_payload_bytes
                using errcode = 'check_violation', table = 'task_runs', column = 'payload';
        end if;
        return new;
    end;
    $function$;

    create trigger task_runs_check_new_run before insert on task_runs
        for each row execute function reproq_check_new_run();

    create function reproq_announce_new_runs() returns trigger language plpgsql as $function$
    begin
        -- One message a queue and statement; the server folds equal ones of a transaction into one.
        perform pg_notify('reproq_task_runs', due.queue_name)
        from (
            select distinct left(queue_name, 200) as queue_name
            from new_runs
            where status = 'PENDING' and (run_after is null or run_after <= now())
        ) as due;
        return null;
    end;
    $function$;

    create trigger task_runs_announce_new_runs after insert on task_runs
        referencing new table as new_runs
        for each statement execute function reproq_announce_new_runs();

    delete from reproq_schema_migrations where version = 4;
end
$migration$;
