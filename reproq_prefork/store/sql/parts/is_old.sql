-- Whether a run finished so long ago that `prune` deletes it.
status in ('SUCCESSFUL', 'FAILED', 'CANCELLED')
and coalesce(finished_at, enqueued_at) < now() - make_interval(
    secs => case status
        when 'SUCCESSFUL' then %(older_than_seconds)s::float8
        else %(failed_older_than_seconds)s::float8
    end
)
