-- Identifies the server, whatever its address: replicas have the identifier of their primary, and no other server
-- has it. This is a separate statement, since a server may forbid this function, or not have it.
select system_identifier as system from pg_catalog.pg_control_system()
