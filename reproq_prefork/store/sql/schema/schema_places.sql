-- Where the schema was looked for, and in which other schemas of this database its table is.
select
    current_database() as database,
    current_setting('search_path') as search_path,
    array_to_json(array(
        select namespace.nspname
        from pg_class as class
        join pg_namespace as namespace on namespace.oid = class.relnamespace
        where class.relname = 'reproq_schema_migrations'
        order by namespace.nspname
    ))::text as elsewhere
