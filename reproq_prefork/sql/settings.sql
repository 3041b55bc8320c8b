-- What all statements of ours are bound by: those of a session, or (`of_transaction`) of one transaction.
--
-- Generic plans: the plan never depends on a value here, and a statement with an array or a LIMIT in a parameter would
-- otherwise be planned at each call. No compilation just in time: what the planner thinks that a claim costs would make
-- the server compile it, which takes a hundred times as long as the claim.
select
    set_config('statement_timeout', %(statement_timeout)s, %(of_transaction)s) as statement_timeout,
    set_config('lock_timeout', %(lock_timeout)s, %(of_transaction)s) as lock_timeout,
    set_config(
        'idle_in_transaction_session_timeout', %(idle_in_transaction_timeout)s, %(of_transaction)s
    ) as idle_timeout,
    set_config('plan_cache_mode', 'force_generic_plan', %(of_transaction)s) as plan_cache_mode,
    set_config('jit', 'off', %(of_transaction)s) as jit
