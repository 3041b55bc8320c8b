do $migration$
begin
    perform pg_advisory_xact_lock(7238251986031521);
    if not exists (
        select from pg_class where relname = 'reproq_schema_migrations' and pg_table_is_visible(oid)
    ) then
        return;
    end if;
    if not exists (select from reproq_schema_migrations where version = 2) then
        return;
    end if;
    if exists (select from reproq_schema_migrations where version > 2) then
        raise exception 'migration 2 (workers) cannot be taken back before the ones that came after it';
    end if;

    drop table if exists reproq_workers;
    delete from reproq_schema_migrations where version = 2;
end
$migration$;
