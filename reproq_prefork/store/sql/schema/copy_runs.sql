-- Adds runs with COPY; `reserve_run_ids` has drawn their ids.
copy task_runs (
    id, run_after, queue_name, payload, spec_hash, priority, max_attempts, timeout_seconds, executor, atomic,
    retry_base_seconds, retry_max_seconds
) from stdin
