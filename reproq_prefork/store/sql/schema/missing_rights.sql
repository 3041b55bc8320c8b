-- What a steward and its workers will need, and this login may not do. Of a table's columns any one stands for all:
-- the rights are given together.
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
