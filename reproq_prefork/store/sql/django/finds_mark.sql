-- Does this connection lead to the database that was marked (`mark_database.sql`)? And which task_runs does it see
-- there? (Another search path may lead to another schema.)
select
    to_regclass('task_runs')::oid as task_runs,
    exists (
        select
        from pg_locks
        where locktype = 'advisory'
          and database = (select oid from pg_database where datname = current_database())
          and classid = %(first)s::bigint::oid
          and objid = %(second)s::bigint::oid
          and objsubid = 2
    ) as is_marked
