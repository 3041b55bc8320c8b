do $migration$
begin
    perform pg_advisory_xact_lock(7238251986031521);
    if not exists (
        select from pg_class where relname = 'reproq_schema_migrations' and pg_table_is_visible(oid)
    ) then
        return;
    end if;
    if not exists (select from reproq_schema_migrations where version = 3) then
        return;
    end if;
    if exists (select from reproq_schema_migrations where version > 3) then
        raise exception 'migration 3 (python_tasks) cannot be taken back before the ones that came after it';
    end if;

    drop table if exists reproq_waiters;
    drop index if exists task_runs_to_cancel, task_runs_finish_due;
    alter table if exists task_runs
        drop column if exists executor,
        drop column if exists atomic,
        drop column if exists retry_base_seconds,
        drop column if exists retry_max_seconds,
        drop column if exists cancel_requested_at,
        drop column if exists metadata,
        drop column if exists last_attempt,
        drop column if exists finish_due_at;
    delete from reproq_schema_migrations where version = 3;
end
$migration$;
