-- The settings that all our statements depend on. They are set for a session, or (`of_transaction`) for one
-- transaction. So the values of a role, a database or postgresql.conf have no effect, neither at the start nor
-- after a reload. All other settings are left to the server's administrator: synchronous_commit, memory, the
-- planner's methods, roles.
--
-- Limits: timeouts that would end a session or a statement while it rightly waits are off.
--
-- Generic plans: here the plan never depends on a value, and a statement with an array or a LIMIT parameter would
-- otherwise be planned at each call. JIT compilation is off: the planner estimates such a cost for a claim that
-- the server would compile it, which takes a hundred times as long as the claim.
--
-- The form of values and the meaning of statements: psycopg reads times in one DateStyle only. Above READ
-- COMMITTED, claims that meet each other fail. exit_on_error would end the session at each refused value. If the
-- search path names a schema before pg_catalog, its functions and operators would be used instead of the server's.
-- (Migrations do not change the path: what they create goes into its first schema. What is called here and earlier
-- names its schema.)
select
    pg_catalog.set_config('statement_timeout', %(statement_timeout)s, %(of_transaction)s) as statement_timeout,
    pg_catalog.set_config('lock_timeout', %(lock_timeout)s, %(of_transaction)s) as lock_timeout,
    pg_catalog.set_config(
        'idle_in_transaction_session_timeout', %(idle_in_transaction_timeout)s, %(of_transaction)s
    ) as idle_timeout,
    pg_catalog.set_config('idle_session_timeout', '0', %(of_transaction)s) as idle_session_timeout,
    case  -- the server has this setting from version 17 on
        when pg_catalog.current_setting('transaction_timeout', true) is not null
        then pg_catalog.set_config('transaction_timeout', '0', %(of_transaction)s)
    end as transaction_timeout,
    pg_catalog.set_config('plan_cache_mode', 'force_generic_plan', %(of_transaction)s) as plan_cache_mode,
    pg_catalog.set_config('jit', 'off', %(of_transaction)s) as jit,
    pg_catalog.set_config('DateStyle', 'ISO, YMD', %(of_transaction)s) as date_style,
    pg_catalog.set_config('TimeZone', 'UTC', %(of_transaction)s) as time_zone,
    pg_catalog.set_config('IntervalStyle', 'postgres', %(of_transaction)s) as interval_style,
    pg_catalog.set_config('extra_float_digits', '1', %(of_transaction)s) as float_digits,
    pg_catalog.set_config('bytea_output', 'hex', %(of_transaction)s) as bytea_output,
    pg_catalog.set_config('standard_conforming_strings', 'on', %(of_transaction)s) as conforming_strings,
    pg_catalog.set_config('transform_null_equals', 'off', %(of_transaction)s) as transform_null_equals,
    pg_catalog.set_config('array_nulls', 'on', %(of_transaction)s) as array_nulls,
    pg_catalog.set_config('row_security', 'on', %(of_transaction)s) as row_security,
    pg_catalog.set_config('exit_on_error', 'off', %(of_transaction)s) as exit_on_error,
    pg_catalog.set_config('client_min_messages', 'notice', %(of_transaction)s) as client_min_messages,
    pg_catalog.set_config('default_transaction_isolation', 'read committed', %(of_transaction)s) as isolation,
    pg_catalog.set_config('default_transaction_deferrable', 'off', %(of_transaction)s) as is_deferrable,
    pg_catalog.set_config(
        'search_path',
        case
            when %(catalog_first)s
                and not pg_catalog.starts_with(pg_catalog.current_setting('search_path'), 'pg_catalog')
            then pg_catalog.concat_ws(', ', 'pg_catalog', nullif(pg_catalog.current_setting('search_path'), ''))
            else pg_catalog.current_setting('search_path')
        end,
        %(of_transaction)s
    ) as search_path
