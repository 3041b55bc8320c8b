"""What somebody may have set for a login, a database or a whole server, each at a value that means trouble."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import sql

# How values are written and read.
FORMATS: Mapping[str, str] = {
    "DateStyle": "SQL, DMY",
    "TimeZone": "Asia/Kathmandu",
    "IntervalStyle": "sql_standard",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "client_encoding": "LATIN1",
    "array_nulls": "off",
    "xmloption": "document",
    "lc_messages": "C",
}
# What a statement means, and how long it or its session may take.
MEANINGS: Mapping[str, str] = {
    "standard_conforming_strings": "off",
    "transform_null_equals": "on",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "idle_in_transaction_session_timeout": "100ms",
    "idle_session_timeout": "300ms",
    "transaction_timeout": "150ms",
    "statement_timeout": "150ms",
    "lock_timeout": "1ms",
    "row_security": "off",
    "exit_on_error": "on",
    "client_min_messages": "debug1",
    "plan_cache_mode": "force_custom_plan",
    "jit": "on",
    "jit_above_cost": "0",
    "search_path": "shadows, pg_catalog, public",
}
ODD: Mapping[str, str] = {**FORMATS, **MEANINGS}

# Functions with the names of the server's own, in a schema that comes before pg_catalog.
SHADOWS = """
    create schema shadows;
    grant usage on schema shadows to public;
    create function shadows.now() returns timestamptz language sql as $$ select timestamptz '4000-01-01' $$;
    create function shadows.pg_backend_pid() returns integer language sql as $$ select 1 $$;
    create function shadows.current_setting(text) returns text language sql as $$ select '1' $$;
    create function shadows.set_config(text, text, boolean) returns text language sql as $$ select '1' $$;
    create function shadows.string_to_array(text, text) returns text[] language sql as $$ select '{}'::text[] $$;
    create function shadows.octet_length(text) returns integer language sql as $$ select 1 $$;
    create function shadows.make_interval(secs float8) returns interval language sql
        as $$ select interval '9 years' $$;
"""


def set_for_database(connection: psycopg.Connection[Any], name: str, value: str, *, role: str = "") -> None:
    """New sessions have it: all of the connection's database, or those of a role. Skips what the server lacks."""
    if name == "search_path":
        connection.execute(SHADOWS)
    if connection.execute("select 1 from pg_settings where name = %s", [name]).fetchone() is None:
        return  # transaction_timeout is of version 17
    whose = sql.SQL("database {}").format(sql.Identifier(connection.info.dbname))
    if role:
        whose = sql.SQL("role {} in {}").format(sql.Identifier(role), whose)
    values = sql.SQL(", ").join(sql.Literal(part.strip()) for part in _values(name, value))
    connection.execute(sql.SQL("alter {} set {} = {}").format(whose, sql.Identifier(name), values))


def _values(name: str, value: str) -> list[str]:
    return value.split(",") if name == "search_path" else [value]
