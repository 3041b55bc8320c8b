-- Takes the lock that each migration file takes too. It is taken before the applied migrations are read, so nobody
-- can migrate between the read and the file. It ends with the transaction, also behind a pooler.
select pg_advisory_xact_lock(7238251986031521)
