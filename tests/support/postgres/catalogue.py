"""A schema as rows, to be compared with another."""

from __future__ import annotations

from typing import Any

import psycopg

# Everything of a schema that can be told apart: what `pg_dump --schema-only` would write, as rows.
CATALOGUE = """
select 'table', c.relname, array_to_string(c.reloptions, ','), c.relkind::text, null
from pg_class c where c.relnamespace = 'public'::regnamespace
union all
select 'column', c.relname || '.' || a.attname, format_type(a.atttypid, a.atttypmod),
    concat_ws(' ', a.attnum, a.attnotnull, a.attidentity, a.attgenerated), pg_get_expr(d.adbin, d.adrelid)
from pg_class c
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
where c.relnamespace = 'public'::regnamespace
union all
select 'constraint', conname, conrelid::regclass::text, pg_get_constraintdef(oid), convalidated::text
from pg_constraint where connamespace = 'public'::regnamespace
union all
select 'index', indexname, tablename, indexdef, null from pg_indexes where schemaname = 'public'
union all
select 'trigger', tgname, tgrelid::regclass::text, pg_get_triggerdef(oid), tgenabled::text
from pg_trigger where not tgisinternal
union all
select 'function', proname, pg_get_functiondef(oid), provolatile::text, null
from pg_proc where pronamespace = 'public'::regnamespace
union all
select 'right', c.relname, acl.grantee::regrole::text, acl.privilege_type, null
from pg_class c, aclexplode(c.relacl) acl where c.relnamespace = 'public'::regnamespace
union all
select 'right', c.relname || '.' || a.attname, acl.grantee::regrole::text, acl.privilege_type, null
from pg_class c join pg_attribute a on a.attrelid = c.oid, aclexplode(a.attacl) acl
where c.relnamespace = 'public'::regnamespace and not a.attisdropped
union all
select 'right', p.proname, acl.grantee::regrole::text, acl.privilege_type, null
from pg_proc p, aclexplode(p.proacl) acl where p.pronamespace = 'public'::regnamespace
union all
select 'type', typname, typtype::text, null, null from pg_type where typnamespace = 'public'::regnamespace
order by 1, 2, 3, 4
"""


def catalogue(url: str) -> list[tuple[Any, ...]]:
    """The rows of the schema `public`."""
    with psycopg.connect(url) as connection:
        return connection.execute(CATALOGUE).fetchall()
