-- What was bounded stays so.
do $migration$
begin
    perform pg_advisory_xact_lock(7238251986031521);
    if not exists (
        select from pg_class where relname = 'reproq_schema_migrations' and pg_table_is_visible(oid)
    ) then
        return;
    end if;
    if not exists (select from reproq_schema_migrations where version = 7) then
        return;
    end if;
    if exists (select from reproq_schema_migrations where version > 7) then
        raise exception 'migration 7 (history) cannot be taken back before the ones that came after it';
    end if;

    drop function if exists reproq_append_error(jsonb, jsonb);
    drop function if exists reproq_append_worker(text[], text);
    drop function if exists reproq_older_workers(text[]);

    delete from reproq_schema_migrations where version = 7;
end
$migration$;
