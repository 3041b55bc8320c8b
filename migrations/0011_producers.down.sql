do $migration$
begin
    perform pg_advisory_xact_lock(7238251986031521);
    if not exists (
        select from pg_class where relname = 'reproq_schema_migrations' and pg_table_is_visible(oid)
    ) then
        return;
    end if;
    if not exists (select from reproq_schema_migrations where version = 11) then
        return;
    end if;
    if exists (select from reproq_schema_migrations where version > 11) then
        raise exception 'migration 11 (producers) cannot be taken back before the ones that came after it';
    end if;

    drop trigger task_runs_hash_spec on task_runs;
    drop trigger task_runs_check_queue_name on task_runs;
    drop function reproq_enqueue(jsonb, text, integer, timestamptz, integer, float8, text);
    drop function reproq_hash_spec();
    drop function reproq_check_queue_name();
    drop function reproq_spec_hash(jsonb);
    drop function reproq_canonical_json(jsonb, integer);
    drop function reproq_key_order(text);
    drop function reproq_canonical_number(numeric);
    drop function reproq_is_shortest(numeric, text, integer);

    delete from reproq_schema_migrations where version = 11;
end
$migration$;
