delete from reproq_waiters where run_id = %(run_id)s and waiter = %(waiter)s
