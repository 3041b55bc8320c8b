-- Marks this database until the end of the transaction, by a lock whose number nobody else has. Another connection
-- finds the mark (`finds_mark.sql`) only where it leads to the same database of the same running server: a copy of it
-- has the same names and numbers, but not its locks, and neither has a standby. It works behind a transaction pooler
-- too, and needs no right.
select pg_advisory_xact_lock(%(first)s::integer, %(second)s::integer), to_regclass('task_runs')::oid as task_runs
