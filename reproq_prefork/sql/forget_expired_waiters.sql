-- Whoever waited for the end of a run and did not say that it has stopped.
delete from reproq_waiters where expires_at < now()
