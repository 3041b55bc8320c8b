-- Every migration that this database has had, known to this release or not.
select version, name, checksum, applied_at from reproq_schema_migrations order by version
