-- Marks this database until the end of the transaction, with a lock whose number nobody else has. Another
-- connection finds the mark (`finds_mark.sql`) only if it leads to the same database of the same running server. A
-- copy of the database has the same names and numbers, but not its locks; a standby does not have them either.
-- This also works behind a transaction pooler, and needs no privilege.
select pg_advisory_xact_lock(%(first)s::integer, %(second)s::integer), to_regclass('task_runs')::oid as task_runs
