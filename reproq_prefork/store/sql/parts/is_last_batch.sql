-- Whether no later batch of `prune` can have an old run: there are no more ids, or no run in this batch was enqueued
-- early enough to be old. Ids grow with that time, except in a long transaction; a later call finds the runs of such
-- a transaction.
count(*) < %(max_runs)s::bigint
    or min(enqueued_at) > now() - make_interval(
        secs => least(%(older_than_seconds)s::float8, %(failed_older_than_seconds)s::float8)
    )
