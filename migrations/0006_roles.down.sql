-- The roles themselves stay: they belong to the cluster, and other databases and logins may use them.
do $migration$
declare
    role record;
begin
    perform pg_advisory_xact_lock(7238251986031521);
    if not exists (
        select from pg_class where relname = 'reproq_schema_migrations' and pg_table_is_visible(oid)
    ) then
        return;
    end if;
    if not exists (select from reproq_schema_migrations where version = 6) then
        return;
    end if;
    if exists (select from reproq_schema_migrations where version > 6) then
        raise exception 'migration 6 (roles) cannot be taken back before the ones that came after it';
    end if;

    drop function if exists reproq_grant_roles();
    grant execute on function reproq_remember_specs(), reproq_forget_specs(), reproq_forget_all_specs() to public;
    for role in
        select rolname as name from pg_roles
        where rolname in ('reproq_producer', 'reproq_worker', 'reproq_observer')
    loop
        execute format(
            'revoke all on reproq_schema_migrations, task_runs, reproq_specs, reproq_workers, reproq_waiters from %I',
            role.name
        );
        execute format('revoke usage on schema %I from %I', current_schema(), role.name);
    end loop;

    delete from reproq_schema_migrations where version = 6;
    alter table reproq_schema_migrations drop column works_with_since;
end
$migration$;
