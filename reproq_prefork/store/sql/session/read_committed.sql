-- The first statement of each transaction behind a transaction pooler. `set_config` in a SELECT would be too late:
-- a SELECT takes a snapshot, and then the isolation of the transaction cannot be changed.
set transaction isolation level read committed
