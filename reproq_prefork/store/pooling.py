"""Does LISTEN work behind this pooler?

At its start, a connection gets a pid, and a pooler invents it. So we can notice a pooler. But it does not say
whether it keeps one server process for the whole connection (PgBouncer's session mode) or one for each
transaction. A session setting that is still there later proves nothing: without other clients, a transaction
pooler gives the same process again.

So we try exactly what we need. The connection listens to a channel and is then idle; another connection sends a
message there. The message can arrive only if the server process belongs to the connection outside of transactions
too. A wrong "no" costs notifications, and then polling is enough. A wrong "yes" is impossible.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import closing

import psycopg
from psycopg.rows import tuple_row

from reproq_prefork.errors import DatabaseUnavailable
from reproq_prefork.store.connection import TimeLimits
from reproq_prefork.store.deadline import DeadlineConnection
from reproq_prefork.store.fetching import fetch
from reproq_prefork.store.outcomes import ConnectionLost, StatementRefused, translated_errors
from reproq_prefork.store.statements import statement

PROBE_LIMITS = TimeLimits(statement_s=2.0, lock_s=1.0, client_s=2.0)
ARRIVES_WITHIN_S = 1.0
CLEANUP_TRIES = 20


def hears_notifications(
    connection: DeadlineConnection, connect_another: Callable[[], DeadlineConnection]
) -> bool:
    """Whether `connection`, which is behind a pooler, would receive notifications. A "no" may take a second.

    `connect_another` opens a connection in the same way. If it cannot, the answer is no. Raises what statements on
    `connection` raise.
    """
    try:
        another = connect_another()
    except DatabaseUnavailable:
        return False
    with closing(another):
        if another.backend.pid == connection.backend.pid:
            return False  # both got the same process, so it belongs to neither
        with translated_errors():
            listener = _listen(connection)
            try:
                return _sends_and_arrives(another, connection)
            finally:
                _unlisten(connection, listener)


def _sends_and_arrives(sender: DeadlineConnection, listener: DeadlineConnection) -> bool:
    token = secrets.token_hex(8)
    try:
        fetch(sender, statement("send_probe"), {"token": token})
    except (ConnectionLost, StatementRefused):
        return False
    return any(message.payload == token for message in listener.notifies(timeout=ARRIVES_WITHIN_S))


def _listen(connection: DeadlineConnection) -> int:
    """Returns the pid of the server process that listens now."""
    return _pid_after(connection, "listen_to_probe")


def _unlisten(connection: DeadlineConnection, listener: int) -> None:
    """A shared process should not listen for ever. Some tries reach it again, or nobody can."""
    for _ in range(CLEANUP_TRIES):
        if _pid_after(connection, "unlisten_probe") == listener:
            return


def _pid_after(connection: DeadlineConnection, name: str) -> int:
    """Send the statement `name`. Returns the pid of the process that executed it: one message, one process."""
    text = f"{statement(name)};\n{statement('backend_pid')}".encode()
    with psycopg.ClientCursor(connection, row_factory=tuple_row) as cursor:
        cursor.execute(text)
        cursor.nextset()
        (pid,) = cursor.fetchall()[0]
        return int(pid)
