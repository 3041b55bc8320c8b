-- Also adopts what psql applied, which leaves no checksum. One that is there is never overwritten: it is
-- the proof that the file has not changed since.
update reproq_schema_migrations set checksum = %(checksum)s where version = %(version)s and checksum is null
