-- The runs of a spec in a table of their own, in place of an index on task_runs.
--
-- A change of status is not HOT, so it makes an entry in every index that has the run, and one in an index on a hash
-- costs most: it goes to another page each time. That was a quarter of all that a claim and an end cost the server.
-- The spec of a run never changes: here it is noted once, with the run, and goes with it.
do $migration$
begin
    perform pg_advisory_xact_lock(7238251986031521);
    if not exists (select from reproq_schema_migrations where version = 4) then
        raise exception 'migration 5 (specs) needs migration 4 (speed), which has not been applied';
    end if;
    if exists (select from reproq_schema_migrations where version = 5) then
        return;
    end if;

    drop index task_runs_spec;

    -- The first 64 of the 256 bits of the hash: two specs may share them, so who looks here compares the hash too.
    create function reproq_spec_key(spec_hash text) returns bigint language sql immutable parallel safe
        return ('x' || left(spec_hash, 16))::bit(64)::bigint;

    create table reproq_specs (
        spec_key bigint not null,
        run_id   bigint not null
    );
    insert into reproq_specs select reproq_spec_key(spec_hash), id from task_runs;
    alter table reproq_specs add primary key (spec_key, run_id);

    -- By the rights of who made the schema: who may enqueue needs none on this table.
    create function reproq_remember_specs() returns trigger language plpgsql security definer as $function$
    begin
        insert into reproq_specs (spec_key, run_id) select reproq_spec_key(spec_hash), id from new_runs;
        return null;
    end;
    $function$;

    create function reproq_forget_specs() returns trigger language plpgsql security definer as $function$
    begin
        delete from reproq_specs as spec
        using old_runs as run
        where spec.spec_key = reproq_spec_key(run.spec_hash) and spec.run_id = run.id;
        return null;
    end;
    $function$;

    create function reproq_forget_all_specs() returns trigger language plpgsql security definer as $function$
    begin
        truncate reproq_specs;
        return null;
    end;
    $function$;

    -- Else a temporary table of the caller's could stand for ours.
    execute format('alter function reproq_remember_specs() set search_path = %I, pg_temp', current_schema());
    execute format('alter function reproq_forget_specs() set search_path = %I, pg_temp', current_schema());
    execute format('alter function reproq_forget_all_specs() set search_path = %I, pg_temp', current_schema());

    -- After task_runs_receive_new_runs, which refuses what is no hash: triggers fire in the order of their names.
    create trigger task_runs_remember_specs after insert on task_runs
        referencing new table as new_runs
        for each statement execute function reproq_remember_specs();
    create trigger task_runs_forget_specs after delete on task_runs
        referencing old table as old_runs
        for each statement execute function reproq_forget_specs();
    create trigger task_runs_forget_all_specs after truncate on task_runs
        for each statement execute function reproq_forget_all_specs();

    insert into reproq_schema_migrations (version, name) values (5, 'specs');
end
$migration$;
