-- Enqueue in plain SQL: any program that can INSERT can do it, and no library is needed.
--
--     psql "$DATABASE_URL" --file examples/enqueue.sql
--
-- A run is named by the SHA-256 of its payload in canonical form. For a document without fractions and without
-- integers beyond 2^53 that is its JSON with sorted keys and no spaces. Write it so, and the one text gives both
-- the payload and its name (never `payload::text`: jsonb has an order and blanks of its own). For all other
-- documents see docs/spec-hash.md.
\set ON_ERROR_STOP on

with spec (canonical) as (
    values ('{"file":"README.md"}')
)
insert into task_runs (payload, spec_hash)
select canonical::jsonb, encode(sha256(convert_to(canonical, 'UTF8')), 'hex')
from spec
returning id, spec_hash;

-- It is one transaction with whatever else is written in it: all of it is there, or nothing. Here also with the
-- queue, the time, and a key that only one unfinished run may hold: a second one is not added.
begin;

create temporary table documents (file text primary key) on commit drop;
insert into documents values ('CHANGELOG.md');

with spec (canonical) as (
    select format('{"file":%s}', to_json(file)) from documents
)
insert into task_runs (payload, spec_hash, queue_name, priority, run_after, max_attempts, timeout_seconds, unique_key)
select
    canonical::jsonb, encode(sha256(convert_to(canonical, 'UTF8')), 'hex'),
    'reports', 10, now() + interval '1 hour', 5, 60, 'words of ' || (canonical::jsonb ->> 'file')
from spec
on conflict (unique_key) where unique_key is not null and status in ('PENDING', 'RUNNING') do nothing
returning id, spec_hash;

commit;
