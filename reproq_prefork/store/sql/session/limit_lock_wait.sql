-- Valid until the end of the transaction. A session that waits for an exclusive lock on a table makes all later
-- ones wait behind it. So a migration gives up rather than block them.
select set_config('lock_timeout', %(lock_timeout)s, true)
