-- Renews the leases of all live workers of a host, in one statement. An ended lease is not renewed: the sweep of
-- another host may be resetting its runs at this moment. An id that is not returned has lost its lease.
update reproq_workers
set renewed_at = now(),
    lease_expires_at = now() + make_interval(secs => %(lease_seconds)s::float8)
where id in (select jsonb_array_elements_text(%(worker_ids)s::jsonb)) and lease_expires_at > now()
returning id
