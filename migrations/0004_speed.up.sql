-- What a new run costs: one trigger a statement in place of one a row, and a NOTIFY only where somebody sleeps.
--
-- A BEFORE ROW trigger keeps COPY from inserting whole pages at a time, and was half of what a row cost. NOTIFY
-- takes a lock of the whole server until the commit has reached the disk, so producers commit one after another.
do $migration$
begin
    perform pg_advisory_xact_lock(7238251986031521);
    if not exists (select from reproq_schema_migrations where version = 3) then
        raise exception 'migration 4 (speed) needs migration 3 (python_tasks), which has not been applied';
    end if;
    if exists (select from reproq_schema_migrations where version = 4) then
        return;
    end if;

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
