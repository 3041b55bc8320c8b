-- To who has just said `listen reproq_probe`; `token` tells one asker from another.
select pg_notify('reproq_probe', %(token)s)
