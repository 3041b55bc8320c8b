-- The leases of all live workers of a host, in one statement. An expired lease is not revived: the
-- sweep of another host may be resetting its runs at this moment. Ids that do not come back are lost.
update reproq_workers
set renewed_at = now(),
    lease_expires_at = now() + make_interval(secs => %(lease_seconds)s::float8)
where id in (select jsonb_array_elements_text(%(worker_ids)s::jsonb)) and lease_expires_at > now()
returning id
