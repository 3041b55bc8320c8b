do $migration$
begin
    perform pg_advisory_xact_lock(7238251986031521);
    if not exists (
        select from pg_class where relname = 'reproq_schema_migrations' and pg_table_is_visible(oid)
    ) then
        return;
    end if;
    if exists (select from reproq_schema_migrations where version > 1) then
        raise exception 'migration 1 (task_runs) cannot be taken back before the ones that came after it';
    end if;

    drop table if exists task_runs;
    drop function if exists reproq_announce_new_runs();
    drop function if exists reproq_refuse_changed_spec();
    drop function if exists reproq_check_new_run();
    drop table reproq_schema_migrations;
end
$migration$;
