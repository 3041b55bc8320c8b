-- The lock that each migration file takes itself, taken before what has been applied is read: so nobody
-- migrates between the reading and the file. It ends with the transaction, also behind a pooler.
select pg_advisory_xact_lock(7238251986031521)
