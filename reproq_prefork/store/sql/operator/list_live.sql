-- The newest PENDING and RUNNING runs that match, from their partial indexes. If there are more than max_scanned
-- PENDING runs, `ids` is null: then the primary key leads to enough of them sooner.
with live as materialized (
    (
        select id
        from task_runs
        where status = 'PENDING' and %(pending)s::boolean
        limit %(max_scanned)s::bigint + 1
    )
    union all
    select id
    from task_runs
    where status = 'RUNNING' and %(running)s::boolean
)
select
    case
        when (select count(*) from live) <= %(max_scanned)s::bigint then array(
            select id
            from task_runs
            where id in (select id from live) and {{is_listed}}
            order by id desc
            limit %(max_runs)s::bigint
        )
    end as ids
