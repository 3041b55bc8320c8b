do $migration$
begin
    perform pg_advisory_xact_lock(7238251986031521);
    if to_regclass('reproq_schema_migrations') is null
       or not exists (select from reproq_schema_migrations where version = 2) then
        return;
    end if;
    if exists (select from reproq_schema_migrations where version > 2) then
        raise exception 'migration 2 (workers) cannot be taken back before the ones that came after it';
    end if;

    drop table if exists reproq_workers;
    delete from reproq_schema_migrations where version = 2;
end
$migration$;
