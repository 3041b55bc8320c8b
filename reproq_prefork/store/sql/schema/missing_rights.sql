-- The privileges that a steward and its workers need and this login does not have. One column is enough to check a
-- table: its privileges are granted together.
select current_user as login, needed.privilege, needed.relation
from (
    values
        ('SELECT', 'task_runs'), ('UPDATE', 'task_runs'),
        ('INSERT', 'reproq_workers'), ('UPDATE', 'reproq_workers'), ('DELETE', 'reproq_workers'),
        ('DELETE', 'reproq_waiters'), ('UPDATE', 'reproq_waiters')
) as needed (privilege, relation)
where not case
    when needed.privilege = 'DELETE' then has_table_privilege(needed.relation, needed.privilege)
    else has_any_column_privilege(needed.relation, needed.privilege)
end
