-- All migrations applied to this database, even if this release does not know them. Read through JSON, since the
-- column works_with_since exists only after the first migration that needs it.
select
    version, name, checksum, applied_at,
    (to_jsonb(migration) ->> 'works_with_since')::integer as works_with_since
from reproq_schema_migrations as migration
order by version
