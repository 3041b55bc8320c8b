-- For the application's own connection: sets `jit` (whether the server compiles statements) and returns the old
-- value.
select before.jit as before, set_config('jit', %(jit)s, false) as jit
from (select current_setting('jit') as jit offset 0) as before
