-- From here to the end of the transaction. Whoever waits for a table's exclusive lock makes all others
-- wait behind it, so a migration gives up rather than hold the queue.
select set_config('lock_timeout', %(lock_timeout)s, true)
