-- What every connection of ours is bound by. Generic plans: the plan never depends on a value here,
-- and a statement with an array or a LIMIT in a parameter would otherwise be planned at each call.
select
    set_config('statement_timeout', %(statement_timeout)s, false) as statement_timeout,
    set_config('lock_timeout', %(lock_timeout)s, false) as lock_timeout,
    set_config('idle_in_transaction_session_timeout', %(idle_in_transaction_timeout)s, false) as idle_timeout,
    set_config('plan_cache_mode', 'force_generic_plan', false) as plan_cache_mode
