-- A run for those who wait for its end, and what says that this connection can never see it: the run was enqueued in
-- the transaction that is still open here (its time is that of the transaction), or the snapshot of that transaction
-- never changes. `transaction_began` is another text at the next look, unless the same transaction is open then.
select
    {{run_columns}},
    enqueued_at = now() as is_uncommitted,
    now()::text as transaction_began,
    current_setting('transaction_isolation') as isolation
from task_runs
where id = %(run_id)s::bigint
