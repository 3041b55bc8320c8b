-- Is this database a copy of another one? Then nobody holds a lease here: an unregistered worker claims nothing.
with foreign_note as (
    select from reproq_foreign_notes() limit 1
),
gone as (
    delete from reproq_workers where exists (select from foreign_note)
)
select exists (select from foreign_note) as is_copy
