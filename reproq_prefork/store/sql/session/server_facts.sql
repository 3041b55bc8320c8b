-- The facts that decide whether this server can be used, and which of its processes answers. One statement, so it
-- costs a new connection one round trip.
select
    pg_catalog.pg_backend_pid() as pid,
    pg_catalog.current_setting('server_version') as version,
    pg_catalog.current_setting('server_version_num')::integer as version_number,
    pg_catalog.pg_is_in_recovery() as is_standby,
    pg_catalog.current_setting('transaction_read_only')::boolean as is_read_only,
    pg_catalog.current_setting('server_encoding') as encoding,
    pg_catalog.current_setting('session_replication_role') as replication_role
