-- A database knows whether it is itself or a copy of another one, and takes in what pg_dump has written.
--
-- A dump of production that is restored for staging brings production's runs, and a master there would run them. So a
-- database notes what it is: the server's system identifier and its own oid. A copy brings the note of its original,
-- which does not fit: then no worker can be registered there, and a claim needs a registration. It is checked where a
-- worker registers, so a claim costs what it did. `select reproq_adopt()` writes a note that fits.
--
-- A restore inserts rows while the triggers are there already, if the schema is. So each table here takes the rows of a
-- dump in whatever order they come, and passes by those that it has or that mean nothing in another database.
do $migration$
begin
    perform pg_advisory_xact_lock(7238251986031521);
    if not exists (select from reproq_schema_migrations where version = 8) then
        raise exception 'migration 9 (copies) needs migration 8 (neighbours), which has not been applied';
    end if;
    if exists (select from reproq_schema_migrations where version = 9) then
        return;
    end if;

    -- No primary key: a restore adds the note of the original beside ours, with or without triggers. One note that
    -- does not fit is enough.
    create table reproq_database (
        system_identifier bigint,       -- of the server; null where the owner of the schema may not ask for it
        database_oid      oid not null,
        table_oid         oid not null, -- of task_runs: CREATE DATABASE ... TEMPLATE keeps it, a restore does not
        database_name     text not null,
        noted_at          timestamptz not null default now(),
        worked_at         timestamptz   -- when the first worker was registered since; null: no worker ever was
    );
    alter table reproq_database replica identity full;  -- adopting deletes, also where all tables are published
    grant select on reproq_database to public;

    -- pg_dump and pg_restore turn both of these settings off in their sessions, and nobody else does. Whoever restores
    -- in another way sets reproq.restore.
    create function reproq_is_restoring() returns boolean language sql stable as $function$
        select lower(coalesce(current_setting('reproq.restore', true), '')) in ('on', 'true', 'yes', '1')
            or (current_setting('check_function_bodies') = 'off' and current_setting('row_security') = 'off')
    $function$;

    -- What this database is now.
    create function reproq_this_database(
        out system_identifier bigint, out database_oid oid, out table_oid oid, out database_name text
    ) language plpgsql stable as $function$
    begin
        if has_function_privilege('pg_control_system()', 'execute') then
            select control.system_identifier into system_identifier from pg_control_system() as control;
        end if;
        database_name := current_database();
        select oid into database_oid from pg_database where datname = database_name;
        table_oid := 'task_runs'::regclass;
    end;
    $function$;

    -- The notes that another database has written: this one is a copy of it. Not so where a database without any
    -- worker so far, such as the template of a test suite, was copied as a whole within its server.
    create function reproq_foreign_notes() returns setof reproq_database language sql stable as $function$
        select note.*
        from reproq_database as note
        cross join reproq_this_database() as this
        where case
                when note.system_identifier <> this.system_identifier then true
                when note.database_oid = this.database_oid then false
                else (
                    note.worked_at is null
                    and note.table_oid = this.table_oid
                    and note.system_identifier = this.system_identifier
                ) is not true
            end
    $function$;

    -- Makes this database its own. Runs stay as they are: what becomes of them is up to the caller. Registrations and
    -- waiters are those of other processes. A restore over rows may have set the sequence back behind them.
    -- It acts by the rights of the owner, for whoever may register workers.
    create function reproq_adopt() returns void language plpgsql security definer as $function$
    begin
        if not has_table_privilege(session_user, 'reproq_workers', 'insert') then
            raise exception 'permission denied: % may not register workers, and so may not adopt this database',
                session_user
                using errcode = 'insufficient_privilege',
                    hint = 'Be a member of the role reproq_worker, or the owner of the tables.';
        end if;
        lock table reproq_database in share row exclusive mode;
        delete from reproq_database;
        insert into reproq_database (system_identifier, database_oid, table_oid, database_name)
        select system_identifier, database_oid, table_oid, database_name from reproq_this_database();
        delete from reproq_workers;
        delete from reproq_waiters;
        perform setval(sequence.name, newest.id)
        from (select pg_get_serial_sequence('task_runs', 'id')::regclass as name) as sequence
        cross join (select max(id) as id from task_runs) as newest
        where newest.id > coalesce(pg_sequence_last_value(sequence.name), 0);
    end;
    $function$;

    -- A restore does not bring registrations: they name processes, and server processes, that work for another
    -- database. Any other one is refused in a copy, and notes that this database has workers now. Only that of a test
    -- which runs its tasks itself is no matter, for its database may be a copy of another test's.
    create function reproq_receive_worker() returns trigger language plpgsql security definer as $function$
    declare
        original record;
    begin
        if reproq_is_restoring() then
            return null;
        end if;
        if new.host_identity = 'in-process' then
            return new;
        end if;
        select database_name, database_oid into original from reproq_foreign_notes() limit 1;
        if found then
            raise exception 'this database is a copy of the database % (oid %), so no worker may work here',
                original.database_name, original.database_oid
                using errcode = 'object_not_in_prerequisite_state',
                    hint = 'Say what becomes of its runs: reproq-prefork adopt --help';
        end if;
        if not exists (
            select
            from reproq_database as note
            join reproq_this_database() as this on this.database_oid = note.database_oid
            where note.worked_at is not null
        ) then
            lock table reproq_database in share row exclusive mode;
            delete from reproq_database where worked_at is null;
            insert into reproq_database (system_identifier, database_oid, table_oid, database_name, worked_at)
            select system_identifier, database_oid, table_oid, database_name, now()
            from reproq_this_database()
            where not exists (select from reproq_database);
        end if;
        return new;
    end;
    $function$;

    -- A restore into a database with workers makes it a copy under them: with the note of the original they lose
    -- their registrations, in the same commit or an earlier one than that which brings the runs.
    create function reproq_receive_note() returns trigger language plpgsql security definer as $function$
    begin
        if exists (select from reproq_foreign_notes()) then
            delete from reproq_workers;
        end if;
        return null;
    end;
    $function$;

    -- Migrations that this database has had are passed by: it knows better when it had them. One that it has not had must
    -- not seem to have been applied.
    create function reproq_receive_migration() returns trigger language plpgsql as $function$
    begin
        if not reproq_is_restoring() then
            return new;
        end if;
        if exists (
            select
            from reproq_schema_migrations as applied
            where applied.version = new.version
              and applied.name = new.name
              and (applied.checksum = new.checksum) is not false
        ) then
            return null;
        end if;
        raise exception 'the dump is of a schema with migration % (%), which this database has not had, or not in this form',
            new.version, new.name
            using errcode = 'object_not_in_prerequisite_state',
                hint = 'Restore the whole dump into an empty database, or migrate this one with the release that made the dump.';
    end;
    $function$;

    -- The specs follow from the runs, and the triggers on task_runs write them. What a restore inserts by itself
    -- would be there before its run or after it, and so twice. Who waited in another database does not wait here.
    create function reproq_pass_by() returns trigger language plpgsql as $function$
    begin
        return null;
    end;
    $function$;

    -- A restore that failed half-way with an earlier release has left specs without their runs, which must not keep the
    -- runs out the next time. Asked of each new run, `on conflict` would make many of them a third dearer. It does no
    -- harm where none is restored, so all of reproq_is_restoring() is not asked here, for each statement.
    create or replace function reproq_remember_specs() returns trigger language plpgsql security definer as $function$
    begin
        if current_setting('check_function_bodies') = 'off' or current_setting('reproq.restore', true) is not null then
            insert into reproq_specs (spec_key, run_id)
            select reproq_spec_key(spec_hash), id from new_runs
            on conflict do nothing;
        else
            insert into reproq_specs (spec_key, run_id) select reproq_spec_key(spec_hash), id from new_runs;
        end if;
        return null;
    end;
    $function$;

    -- Under pg_dump nothing is found without a schema's name, and a table of the caller's must not stand for ours.
    execute format('alter function reproq_this_database() set search_path = %I, pg_temp', current_schema());
    execute format('alter function reproq_foreign_notes() set search_path = %I, pg_temp', current_schema());
    execute format('alter function reproq_adopt() set search_path = %I, pg_temp', current_schema());
    execute format('alter function reproq_receive_worker() set search_path = %I, pg_temp', current_schema());
    execute format('alter function reproq_receive_note() set search_path = %I, pg_temp', current_schema());
    execute format('alter function reproq_receive_migration() set search_path = %I, pg_temp', current_schema());
    alter function reproq_pass_by() set search_path = pg_catalog, pg_temp;
    execute format('alter function reproq_remember_specs() set search_path = %I, pg_temp', current_schema());
    -- Whoever may execute one could make it the trigger of a table of their own.
    revoke execute on function reproq_receive_worker(), reproq_receive_note() from public;

    insert into reproq_database (system_identifier, database_oid, table_oid, database_name, worked_at)
    select
        system_identifier, database_oid, table_oid, database_name,
        case when exists (select from reproq_workers) then now() end
    from reproq_this_database();

    create trigger reproq_workers_receive_worker before insert on reproq_workers
        for each row execute function reproq_receive_worker();
    create trigger reproq_database_receive_note after insert on reproq_database
        for each statement execute function reproq_receive_note();
    create trigger reproq_schema_migrations_receive_migration before insert on reproq_schema_migrations
        for each row execute function reproq_receive_migration();
    -- Depth 0: not by way of a trigger. This is looked at for each new run, and costs no call of a function of ours.
    create trigger reproq_specs_pass_by before insert on reproq_specs
        for each row when (pg_trigger_depth() = 0) execute function reproq_pass_by();
    create trigger reproq_waiters_pass_by before insert on reproq_waiters
        for each row when (reproq_is_restoring()) execute function reproq_pass_by();

    insert into reproq_schema_migrations (version, name, works_with_since) values (9, 'copies', 5);
end
$migration$;
