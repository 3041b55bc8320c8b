-- Sent before the table is read: a statement that names a missing table would end the transaction. It does not use
-- to_regclass(): that may answer from the session's cache with the state before the wait for the lock. Reading a
-- table makes the session process what others have created (to_regclass() was seen to fail).
select exists (
    select from pg_class where relname = 'reproq_schema_migrations' and pg_table_is_visible(oid)
) as has_schema
