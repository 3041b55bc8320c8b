-- What a claim changes of a run. It must not fail because of what one row holds, for it would fail for all that are
-- claimed with it, again and again: a counter at the end of its type stays there, and a list that nothing can be
-- appended to stays as it is. `unreadable` in claimed_columns says then that the run must not be run.
        status = 'RUNNING',
        attempts = least(attempts, 2147483646) + 1,
        claims = least(claims, 9223372036854775806) + 1,
        leased_by = %(worker_id)s,
        lease_expires_at = now() + make_interval(secs => %(lease_seconds)s::float8),
        worker_ids = case
            when array_ndims(worker_ids) > 1 then worker_ids
            else reproq_append_worker(worker_ids, %(worker_id)s::text)
        end,
        started_at = coalesce(started_at, now()),
        last_attempted_at = now()
