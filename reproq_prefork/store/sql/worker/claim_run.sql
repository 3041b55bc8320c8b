-- Claims one run by its id, as finish_and_claim claims many. It reads no text of the row: so if the row has a
-- fault, the error concerns this run alone. It returns one row, without an id if the run is no longer free.
with holder as (
    select exists (
        select from reproq_workers where id = %(worker_id)s and lease_expires_at > now()
    ) as holds_lease
),
claimed as (
    update task_runs
    set {{set_claimed}}
    where id = (
        select id
        from task_runs
        where id = %(run_id)s::bigint and status = 'PENDING' and (select holds_lease from holder)
        for update skip locked
    )
    returning
        id, claims, greatest(attempts, 1) as attempts, least(greatest(max_attempts, 1), 1000) as max_attempts,
        task_path is not null as names_task
)
select claimed.*, holder.holds_lease from holder left join claimed on true
