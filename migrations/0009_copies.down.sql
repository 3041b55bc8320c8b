do $migration$
begin
    perform pg_advisory_xact_lock(7238251986031521);
    if not exists (
        select from pg_class where relname = 'reproq_schema_migrations' and pg_table_is_visible(oid)
    ) then
        return;
    end if;
    if not exists (select from reproq_schema_migrations where version = 9) then
        return;
    end if;
    if exists (select from reproq_schema_migrations where version > 9) then
        raise exception 'migration 9 (copies) cannot be taken back before the ones that came after it';
    end if;

    drop trigger if exists reproq_workers_receive_worker on reproq_workers;
    drop trigger if exists reproq_schema_migrations_receive_migration on reproq_schema_migrations;
    drop trigger if exists reproq_specs_pass_by on reproq_specs;
    drop trigger if exists reproq_waiters_pass_by on reproq_waiters;
    drop function if exists reproq_receive_worker();
    drop function if exists reproq_receive_migration();
    drop function if exists reproq_pass_by();
    drop function if exists reproq_adopt();
    drop function if exists reproq_foreign_notes();
    create or replace function reproq_remember_specs() returns trigger language plpgsql security definer as $function$
    begin
        insert into reproq_specs (spec_key, run_id) select reproq_spec_key(spec_hash), id from new_runs;
        return null;
    end;
    $function$;
    execute format('alter function reproq_remember_specs() set search_path = %I, pg_temp', current_schema());
    drop table if exists reproq_database;
    drop function if exists reproq_receive_note();
    drop function if exists reproq_this_database();
    drop function if exists reproq_is_restoring();

    delete from reproq_schema_migrations where version = 9;
end
$migration$;
