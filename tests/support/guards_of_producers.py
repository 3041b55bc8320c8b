"""Guards of those who enqueue and wait: whose transaction it is, and waits that would never end."""

from __future__ import annotations

from collections.abc import Sequence

from tests.chaos.builds import Change
from tests.support.guard import Guard

CALLERS = "tests/integration/test_callers.py"
WAIT = "tests/integration/test_wait.py"
ASYNC = "tests/integration/test_async_runs.py"

PRODUCERS: Sequence[Guard] = (
    Guard(
        "a session of SQLAlchemy knows of the transaction that an enqueue begins",
        [
            Change(
                "store/sqlalchemy_connections.py",
                "    if not connection.in_transaction():\n        connection.begin()\n",
                "",
            )
        ],
        [CALLERS],
    ),
    Guard(
        "an async session of SQLAlchemy knows of the transaction that an enqueue begins",
        [
            Change(
                "store/sqlalchemy_connections.py",
                "    if not connection.in_transaction():\n        await connection.begin()\n",
                "",
            )
        ],
        [CALLERS],
    ),
    Guard(
        "many runs do not commit a transaction that they have begun",
        [
            Change(
                "store/psycopg_senders.py",
                '        if _has_to_begin(self._connection):\n            await self.fetch("backend_pid", {})\n',
                "",
            )
        ],
        [ASYNC],
    ),
    Guard(
        "an error of an answer reaches the script that has asked",
        [
            Change(
                "store/script.py",
                "                answer = await _answer_async(sender, step)\n            except BaseException",
                "                answer = await _answer_async(sender, step)\n            except ArithmeticError",
            )
        ],
        [ASYNC],
    ),
    Guard(
        "a wait for a run that nobody else sees is refused",
        [Change("store/task_runs.py", "        if row.is_uncommitted:", "        if False:")],
        [WAIT],
    ),
    Guard(
        "a wait on one snapshot is refused",
        [Change("store/task_runs.py", "        if same_transaction and", "        if False and")],
        [WAIT],
    ),
)
