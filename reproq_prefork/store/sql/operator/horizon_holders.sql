-- Lists what keeps dead rows from being removed, the oldest first. Vacuum removes only what no snapshot can still
-- see, and a queue with dead entries at its head gets slower with each claim.
--
-- A session counts with its snapshot, and with its transaction id if it has written. A session of another database
-- counts only with its transaction id: snapshots taken here reach back to the oldest transaction that still writes
-- anywhere in the server. The snapshot of a vacuum does not count. For slots and replicas, the time is not known,
-- only the number of transactions. The same is true of other logins' sessions, if this login may not see their
-- time (pg_read_all_stats).
select *
from (
    select
        case when activity.backend_type = 'walsender' then 'replica' else 'session' end as kind,
        activity.pid,
        nullif(activity.application_name, '') as name,
        activity.usename::text as login,
        activity.datname::text as database,
        activity.state,
        extract(epoch from clock_timestamp() - activity.xact_start)::float8 as held_seconds,
        case
            when activity.datid is null or activity.datname = current_database()
            then greatest(age(activity.backend_xmin), age(activity.backend_xid))
            else age(activity.backend_xid)
        end as transactions
    from pg_stat_activity as activity
    where activity.pid <> pg_backend_pid()
      and activity.leader_pid is null
      and (activity.backend_type <> 'autovacuum worker' or activity.query not like 'autovacuum: VACUUM%%')
    union all
    select
        'prepared', null, gid, owner::text, database::text, null,
        extract(epoch from clock_timestamp() - prepared)::float8, age(transaction)
    from pg_prepared_xacts
    union all
    select
        'slot', active_pid, slot_name::text, null, database::text,
        case when active then 'active' else 'inactive' end, null, age(xmin)
    from pg_replication_slots
) as holder
where case
    when held_seconds is null then transactions >= %(min_transactions)s::bigint
    else held_seconds >= %(min_seconds)s::float8 and transactions is not null
end
order by transactions desc
limit %(max_holders)s::integer
