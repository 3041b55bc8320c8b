-- The leases: one row a worker fork, renewed by its host's steward with one statement. Leases stand
-- here and not in task_runs, so that a renewal never waits for a locked run, deadlocks with a batch
-- of them, or breaks a serializable transaction of a task.
do $migration$
begin
    perform pg_advisory_xact_lock(7238251986031521);
    if not exists (select from reproq_schema_migrations where version = 1) then
        raise exception 'migration 2 (workers) needs migration 1 (task_runs), which has not been applied';
    end if;
    if exists (select from reproq_schema_migrations where version = 2) then
        return;
    end if;

    create table reproq_workers (
        id               text primary key,     -- unique to a fork; task_runs.leased_by names it
        host             text not null,        -- the host's name, for people
        host_identity    text not null,        -- boot id and pid namespace: where the pids below mean something
        pid              integer not null,
        pid_started      bigint not null,      -- the process' start in clock ticks since boot: tells a reused pid
        master_pid       integer not null,
        master_started   bigint not null,
        backend_pid      integer,              -- the server's process for this worker; null behind a pooler
        backend_started  timestamptz,
        version          text not null,
        queues           text[] not null,
        started_at       timestamptz not null default now(),
        renewed_at       timestamptz not null default now(),
        lease_expires_at timestamptz not null
    ) with (fillfactor = 50, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);

    insert into reproq_schema_migrations (version, name) values (2, 'workers');
end
$migration$;
