-- Who may do what: three roles without a login, for a login to be a member of.
--
--   reproq_producer  enqueues, and reads what has become of runs
--   reproq_worker    is what a master's steward and workers need: they change runs, and none of what a run is
--   reproq_observer  reads
--
-- Roles belong to a cluster, and whoever may make a schema often may make no roles. So where the roles are missing and
-- cannot be made, this says so and goes on; once they are there, `select reproq_grant_roles()` does the rest.
do $migration$
declare
    role name;
begin
    perform pg_advisory_xact_lock(7238251986031521);
    if not exists (select from reproq_schema_migrations where version = 5) then
        raise exception 'migration 6 (roles) needs migration 5 (specs), which has not been applied';
    end if;
    if exists (select from reproq_schema_migrations where version = 6) then
        return;
    end if;

    foreach role in array array['reproq_producer', 'reproq_worker', 'reproq_observer'] loop
        if not exists (select from pg_roles where rolname = role) then
            begin
                execute format('create role %I nologin', role);
            exception
                when duplicate_object or unique_violation then
                    null;  -- another database of the cluster is migrated at this moment
                when insufficient_privilege then
                    raise notice 'the role % is missing, and % may make no roles', role, current_user
                        using hint = 'Have it made, if you want to use it, then: select reproq_grant_roles()';
            end;
        end if;
    end loop;

    -- By the rights of the caller, who must be the owner of the tables. It gives each of the roles that there are what
    -- it needs, may be called again, and takes nothing from anybody. A later migration that adds a column which workers
    -- write, or producers set, replaces it.
    create function reproq_grant_roles() returns void language plpgsql as $function$
    declare
        schema constant name := current_schema();
        role record;
    begin
        for role in
            select rolname as name from pg_roles
            where rolname in ('reproq_producer', 'reproq_worker', 'reproq_observer')
        loop
            execute format('grant usage on schema %I to %I', schema, role.name);
            execute format('grant select on reproq_schema_migrations, task_runs, reproq_specs to %I', role.name);
            case role.name
                when 'reproq_producer' then
                    -- No id: one that is ahead of the sequence would make a later run of another producer fail.
                    grant insert (
                        queue_name, payload, spec_hash, priority, run_after, max_attempts, timeout_seconds,
                        unique_key, replay_of, executor, atomic, retry_base_seconds, retry_max_seconds
                    ) on task_runs to reproq_producer;
                    -- To wait for the end of a run.
                    grant select, insert, delete on reproq_waiters to reproq_producer;
                when 'reproq_worker' then
                    -- Not what a run is and when it is due first: queue, payload, hash, priority, limits, key.
                    grant update (
                        status, attempts, claims, leased_by, lease_expires_at, worker_ids, run_after, result, errors,
                        started_at, last_attempted_at, finished_at, cancel_requested_at, metadata, last_attempt,
                        finish_due_at
                    ) on task_runs to reproq_worker;
                    grant select, insert, update, delete on reproq_workers to reproq_worker;
                    grant select, delete on reproq_waiters to reproq_worker;
                when 'reproq_observer' then
                    grant select on reproq_workers, reproq_waiters to reproq_observer;
            end case;
        end loop;
    end;
    $function$;
    execute format('alter function reproq_grant_roles() set search_path = %I, pg_temp', current_schema());
    revoke execute on function reproq_grant_roles() from public;
    perform reproq_grant_roles();

    -- These act by the rights of the owner. Whoever may execute one could make it the trigger of a table of their own.
    -- That task_runs has them as triggers already asks for no such right.
    revoke execute on function reproq_remember_specs(), reproq_forget_specs(), reproq_forget_all_specs() from public;

    -- The oldest version whose release goes on working with what a migration leaves; here it only adds.
    alter table reproq_schema_migrations add column works_with_since integer;
    insert into reproq_schema_migrations (version, name, works_with_since) values (6, 'roles', 5);
end
$migration$;
