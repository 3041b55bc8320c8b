-- What a new run costs: most of its checks once a statement, and a NOTIFY only where somebody sleeps. What a change of
-- its status costs: no generated column.
--
-- NOTIFY takes a lock of the whole server until the commit has reached the disk, so producers commit one after another.
-- A stored generated column that an UPDATE need not compute is prepared anew for each row of it by PostgreSQL 16 and
-- later, which was a fifth of all that a claim and an end cost the server. So a trigger names the task of a new run.
do $migration$
begin
    perform pg_advisory_xact_lock(7238251986031521);
    if not exists (select from reproq_schema_migrations where version = 3) then
        raise exception 'migration 4 (speed) needs migration 3 (python_tasks), which has not been applied';
    end if;
    if exists (select from reproq_schema_migrations where version = 4) then
        return;
    end if;

    alter table task_runs alter column task_path drop expression;

    create function reproq_name_task() returns trigger language plpgsql as $function$
    begin
        new.task_path := case
            when new.payload -> 'v' = '1' and jsonb_typeof(new.payload -> 'task') = 'string'
            then new.payload ->> 'task'
        end;
        return new;
    end;
    $function$;

    create trigger task_runs_name_task before insert on task_runs
        for each row execute function reproq_name_task();

    create or replace function reproq_refuse_changed_spec() returns trigger language plpgsql as $function$
    begin
        if new.payload::text is distinct from old.payload::text
            or new.spec_hash is distinct from old.spec_hash
            or new.task_path is distinct from old.task_path
        then
            raise exception 'task_runs.payload, spec_hash and task_path of run % are immutable', old.id
                using errcode = 'integrity_constraint_violation', table = 'task_runs';
        end if;
        return null;
    end;
    $function$;

    drop trigger task_runs_refuse_changed_spec on task_runs;
    create trigger task_runs_refuse_changed_spec after update of payload, spec_hash, task_path on task_runs
        for each row execute function reproq_refuse_changed_spec();

    drop trigger task_runs_check_new_run on task_runs;
    drop trigger task_runs_announce_new_runs on task_runs;
    drop function reproq_check_new_run();
    drop function reproq_announce_new_runs();

    create function reproq_receive_new_runs() returns trigger language plpgsql as $function$
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

    create trigger task_runs_receive_new_runs after insert on task_runs
        referencing new table as new_runs
        for each statement execute function reproq_receive_new_runs();

    insert into reproq_schema_migrations (version, name) values (4, 'speed');
end
$migration$;
