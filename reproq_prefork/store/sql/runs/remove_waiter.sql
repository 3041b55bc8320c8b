select reproq_stop_awaiting(%(run_id)s::bigint, %(waiter)s::text)
