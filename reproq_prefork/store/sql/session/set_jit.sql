-- On the application's own connection: whether the server compiles statements, and what was set before.
select before.jit as before, set_config('jit', %(jit)s, false) as jit
from (select current_setting('jit') as jit offset 0) as before
