-- Also records the checksum of a migration applied with psql, which stores none. It never overwrites a checksum:
-- that is the proof that the file has not changed since.
update reproq_schema_migrations set checksum = %(checksum)s where version = %(version)s and checksum is null
