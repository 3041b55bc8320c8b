-- Notifies the session that has just sent `listen reproq_probe`. `token` tells it from other sessions that probe.
select pg_notify('reproq_probe', %(token)s)
