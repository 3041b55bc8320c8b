-- What this database is, and which other databases have written a note in reproq_database: this one is a copy of
-- them. No row is returned if it is the original.
select
    note.database_name,
    note.database_oid,
    note.system_identifier,
    this.database_name as this_name,
    this.database_oid as this_oid,
    this.system_identifier as this_system
from reproq_foreign_notes() as note
cross join reproq_this_database() as this
order by note.noted_at
