-- What a server must be before anything else is asked of it: new enough, and willing to write. Asked in
-- one statement, so that a start costs one round trip for it.
select
    current_setting('server_version') as version,
    current_setting('server_version_num')::integer as version_number,
    pg_is_in_recovery() as is_standby,
    current_setting('transaction_read_only')::boolean as is_read_only
