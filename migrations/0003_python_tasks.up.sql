-- What Python tasks need of a run: how it wants to be run, cancelling, what an attempt used, and who still
-- has to be told of its end.
do $migration$
begin
    perform pg_advisory_xact_lock(7238251986031521);
    if not exists (select from reproq_schema_migrations where version = 2) then
        raise exception 'migration 3 (python_tasks) needs migration 2 (workers), which has not been applied';
    end if;
    if exists (select from reproq_schema_migrations where version = 3) then
        return;
    end if;

    alter table task_runs
        add column executor            text,  -- fork or inline, where the host runs Python tasks; null: as the host does
        add column atomic              boolean not null default false,  -- it completes in its own transaction
        add column retry_base_seconds  real,  -- null: as the host does
        add column retry_max_seconds   real,
        add column cancel_requested_at timestamptz,
        add column metadata            jsonb,  -- what the task says of its progress
        add column last_attempt        jsonb,  -- of the attempt that succeeded: exit, cpu_seconds, peak_rss_kib, output
        add column finish_due_at       timestamptz,  -- from when on a worker is to tell the application of the end
        add constraint task_runs_executor_known check (executor in ('fork', 'inline')),
        add constraint task_runs_retry_base_finite
            check (retry_base_seconds >= 0 and retry_base_seconds < 'infinity'),
        add constraint task_runs_retry_max_finite
            check (retry_max_seconds >= 0 and retry_max_seconds < 'infinity');

    -- Both are nearly always empty, and cost a run that is neither cancelled nor announced nothing.
    create index task_runs_to_cancel on task_runs (leased_by)
        where status = 'RUNNING' and cancel_requested_at is not null;
    create index task_runs_finish_due on task_runs (finish_due_at) where finish_due_at is not null;

    -- Who waits for the end of a run and listens to the channel reproq_finished: only then it is announced there,
    -- since each NOTIFY is a global lock at commit.
    create table reproq_waiters (
        run_id     bigint not null,
        waiter     text not null,
        expires_at timestamptz not null,
        primary key (run_id, waiter)
    ) with (autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);

    insert into reproq_schema_migrations (version, name) values (3, 'python_tasks');
end
$migration$;
