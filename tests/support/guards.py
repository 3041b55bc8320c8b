"""The guards of the code that no test may do without, and the tests that see each one go.

A guard is a line that only matters on a bad day: a lock, a margin, a condition for a late reply. Without it all
goes on working until that day. `make mutants` takes out one at a time: at least one of its tests must fail then.

Add a guard to its list when you write one. `Change.old` must be in its file exactly once.
"""

from __future__ import annotations

from collections.abc import Sequence

from tests.support.guard import Guard
from tests.support.guards_of_producers import PRODUCERS
from tests.support.guards_of_sql import SQL
from tests.support.guards_of_stewards import STEWARDS
from tests.support.guards_of_tasks import TASKS
from tests.support.guards_of_workers import WORKERS

GUARDS: Sequence[Guard] = (*SQL, *STEWARDS, *WORKERS, *TASKS, *PRODUCERS)
