-- The columns that a claim changes. It must not fail because of one row's content, since then it would fail for
-- all runs claimed with it, again and again. So a counter at its maximum stays there, and a list stays unchanged
-- if nothing can be appended to it. Then `unreadable` in claimed_columns says that the run must not be executed.
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
