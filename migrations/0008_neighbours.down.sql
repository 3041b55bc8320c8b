do $migration$
begin
    perform pg_advisory_xact_lock(7238251986031521);
    if not exists (
        select from pg_class where relname = 'reproq_schema_migrations' and pg_table_is_visible(oid)
    ) then
        return;
    end if;
    if not exists (select from reproq_schema_migrations where version = 8) then
        return;
    end if;
    if exists (select from reproq_schema_migrations where version > 8) then
        raise exception 'migration 8 (neighbours) cannot be taken back before the ones that came after it';
    end if;

    alter function reproq_name_task() reset search_path;
    alter function reproq_refuse_changed_spec() reset search_path;
    alter function reproq_receive_new_runs() reset search_path;
    drop function if exists reproq_await_run(bigint, text, float8);
    drop function if exists reproq_stop_awaiting(bigint, text);
    drop index if exists reproq_waiters_expires_at;

    if exists (select from pg_roles where rolname = 'reproq_worker') then
        revoke update on reproq_waiters from reproq_worker;
    end if;
    create or replace function reproq_grant_roles() returns void language plpgsql as $function$
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
    perform reproq_grant_roles();

    delete from reproq_schema_migrations where version = 8;
end
$migration$;
