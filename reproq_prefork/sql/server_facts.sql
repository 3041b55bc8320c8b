-- What a server must be before anything else is asked of it, and which of its processes answers. Asked in one
-- statement, so that a connection costs one round trip for it.
select
    pg_backend_pid() as pid,
    current_setting('server_version') as version,
    current_setting('server_version_num')::integer as version_number,
    pg_is_in_recovery() as is_standby,
    current_setting('transaction_read_only')::boolean as is_read_only,
    current_setting('server_encoding') as encoding,
    current_setting('session_replication_role') as replication_role
