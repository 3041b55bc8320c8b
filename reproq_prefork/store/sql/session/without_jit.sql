-- The first statement of a transaction whose session does not have our settings yet. A utility statement is never
-- compiled itself. With `jit_above_cost = 0` the server would compile even `settings`, which takes a fifth of a second.
set local jit = off
