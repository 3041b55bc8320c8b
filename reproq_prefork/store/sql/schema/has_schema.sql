-- Asked before the table is read: a statement that names a missing table would end the transaction. Not by
-- to_regclass(), which may answer from the session's cache what was true before the lock was waited for:
-- reading a table makes the session hear of what others have created (seen to fail otherwise).
select exists (
    select from pg_class where relname = 'reproq_schema_migrations' and pg_table_is_visible(oid)
) as has_schema
