-- Enqueue in plain SQL. Any program that can INSERT can do it; you need no library.
--
--     psql "$DATABASE_URL" --file examples/enqueue.sql
--
-- `insert into task_runs (payload) values (...)` is enough: then the server computes the name of the payload. This
-- example computes it itself, which costs the server less.
--
-- The name of a run's payload is the SHA-256 of its canonical form. If a document has no fractions and no integers
-- above 2^53, its canonical form is its JSON with sorted keys and no spaces. Write the payload in this form: then
-- one text gives both the payload and its name. Do not use `payload::text`: jsonb has its own order and blanks.
-- For all other documents see docs/spec-hash.md.
\set ON_ERROR_STOP on

with spec (canonical) as (
    values ('{"file":"README.md"}')
)
insert into task_runs (payload, spec_hash)
select canonical::jsonb, encode(sha256(convert_to(canonical, 'UTF8')), 'hex')
from spec
returning id, spec_hash;

-- The insert is part of your transaction: everything in it is saved, or nothing. This example also sets the queue,
-- the time, and a unique key, which only one unfinished run may hold: a second run with this key is not added.
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
