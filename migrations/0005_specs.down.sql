do $migration$
begin
    perform pg_advisory_xact_lock(7238251986031521);
    if not exists (
        select from pg_class where relname = 'reproq_schema_migrations' and pg_table_is_visible(oid)
    ) then
        return;
    end if;
    if not exists (select from reproq_schema_migrations where version = 5) then
        return;
    end if;
    if exists (select from reproq_schema_migrations where version > 5) then
        raise exception 'migration 5 (specs) cannot be taken back before the ones that came after it';
    end if;

    drop trigger if exists task_runs_remember_specs on task_runs;
    drop trigger if exists task_runs_forget_specs on task_runs;
    drop trigger if exists task_runs_forget_all_specs on task_runs;
    drop function if exists reproq_remember_specs();
    drop function if exists reproq_forget_specs();
    drop function if exists reproq_forget_all_specs();
    drop table if exists reproq_specs;
    drop function if exists reproq_spec_key(text);

    create index task_runs_spec on task_runs (left(spec_hash, 16), id);

    delete from reproq_schema_migrations where version = 5;
end
$migration$;
