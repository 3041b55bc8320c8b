-- Behind a transaction pooler, the first statement of each transaction: `set_config` in a SELECT would be too late, for
-- a SELECT takes the snapshot after which the isolation of a transaction cannot be changed.
set transaction isolation level read committed
