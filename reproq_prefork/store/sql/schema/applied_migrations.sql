-- Every migration that this database has had, known to this release or not. Read by way of JSON, since the column
-- works_with_since is there only from the first migration on that says something in it.
select
    version, name, checksum, applied_at,
    (to_jsonb(migration) ->> 'works_with_since')::integer as works_with_since
from reproq_schema_migrations as migration
order by version
