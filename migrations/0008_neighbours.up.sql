-- What others may do to the queue. A right to INSERT and DELETE in a table is a right to lock it: so a producer that waits
-- for the end of a run says so by a function, and has no such right any more. And what a function means by a name is not
-- decided by the search path of whoever calls it.
do $migration$
begin
    perform pg_advisory_xact_lock(7238251986031521);
    if not exists (select from reproq_schema_migrations where version = 7) then
        raise exception 'migration 8 (neighbours) needs migration 7 (history), which has not been applied';
    end if;
    if exists (select from reproq_schema_migrations where version = 8) then
        return;
    end if;

    -- Who has left without a goodbye is found without reading who still waits.
    create index reproq_waiters_expires_at on reproq_waiters (expires_at);

    -- From now on the end of this run is announced, for at most an hour. False where it is not: the run has ended, or is
    -- not there yet, or has very many waiters already. Whoever waits looks now and then in any case.
    create function reproq_await_run(run_id bigint, waiter text, seconds float8) returns boolean
    language plpgsql security definer as $function$
    declare
        max_seconds constant float8 := 3600;
        max_waiters constant integer := 100;  -- of one run
        max_waiter_chars constant integer := 64;
    begin
        if length(waiter) between 1 and max_waiter_chars is not true then
            raise exception 'reproq_await_run: the name of a waiter has 1 to % characters', max_waiter_chars
                using errcode = 'invalid_parameter_value';
        end if;
        if not exists (
            select from task_runs as run
            where run.id = reproq_await_run.run_id and run.status in ('PENDING', 'RUNNING')
        ) then
            return false;
        end if;
        if max_waiters <= (
            select count(*)
            from (
                select from reproq_waiters as present
                where present.run_id = reproq_await_run.run_id
                limit max_waiters
            ) as first_ones
        ) then
            return false;
        end if;
        insert into reproq_waiters as present (run_id, waiter, expires_at)
        values (
            reproq_await_run.run_id, reproq_await_run.waiter,
            now() + make_interval(secs => least(greatest(seconds, 0), max_seconds))
        )
        on conflict on constraint reproq_waiters_pkey do update set expires_at = excluded.expires_at;
        return true;
    end;
    $function$;

    create function reproq_stop_awaiting(run_id bigint, waiter text) returns void
    language plpgsql security definer as $function$
    begin
        delete from reproq_waiters as present
        where present.run_id = reproq_stop_awaiting.run_id and present.waiter = reproq_stop_awaiting.waiter;
    end;
    $function$;
    revoke execute on function
        reproq_await_run(bigint, text, float8), reproq_stop_awaiting(bigint, text) from public;

    -- As the function of migration 6, but for what producers may do with waiters, and workers with those of the gone.
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
                    -- By column, and on no other table: a right to write a whole table is a right to lock it.
                    grant insert (
                        queue_name, payload, spec_hash, priority, run_after, max_attempts, timeout_seconds,
                        unique_key, replay_of, executor, atomic, retry_base_seconds, retry_max_seconds
                    ) on task_runs to reproq_producer;
                    grant execute on function
                        reproq_await_run(bigint, text, float8), reproq_stop_awaiting(bigint, text)
                        to reproq_producer;
                when 'reproq_worker' then
                    -- Not what a run is and when it is due first: queue, payload, hash, priority, limits, key.
                    grant update (
                        status, attempts, claims, leased_by, lease_expires_at, worker_ids, run_after, result, errors,
                        started_at, last_attempted_at, finished_at, cancel_requested_at, metadata, last_attempt,
                        finish_due_at
                    ) on task_runs to reproq_worker;
                    grant select, insert, update, delete on reproq_workers to reproq_worker;
                    grant select, update, delete on reproq_waiters to reproq_worker;
                when 'reproq_observer' then
                    grant select on reproq_workers, reproq_waiters to reproq_observer;
            end case;
        end loop;
    end;
    $function$;
    execute format('alter function reproq_grant_roles() set search_path = %I, pg_temp', current_schema());

    if exists (select from pg_roles where rolname = 'reproq_producer') then
        revoke all on reproq_waiters from reproq_producer;
    end if;
    perform reproq_grant_roles();

    -- Else octet_length(text) of a schema of the caller's own, before pg_catalog in its search path, could stand for ours.
    execute format(
        'alter function reproq_await_run(bigint, text, float8) set search_path = pg_catalog, %I, pg_temp',
        current_schema()
    );
    execute format(
        'alter function reproq_stop_awaiting(bigint, text) set search_path = pg_catalog, %I, pg_temp',
        current_schema()
    );
    -- These two use nothing of ours. The first is called for each new run: a longer path would take a microsecond of it.
    alter function reproq_name_task() set search_path = pg_catalog, pg_temp;
    alter function reproq_refuse_changed_spec() set search_path = pg_catalog, pg_temp;
    alter function reproq_receive_new_runs() set search_path = pg_catalog, pg_temp;

    insert into reproq_schema_migrations (version, name, works_with_since) values (8, 'neighbours', 6);
end
$migration$;
