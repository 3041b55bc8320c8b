"""Does LISTEN work behind this pooler?

A pooler makes up the pid that a connection is told at its start, so it can be noticed; whether it keeps one
server process for the whole connection (PgBouncer's session mode) or one for each transaction, it does not say.
A setting of the session that is still there later proves nothing, for where nobody else is at work a
transaction pooler gives the same process again.

So the very thing is tried that matters. The connection listens to a channel, and then is idle; another
connection sends a message there. It can arrive only where the server process still belongs to the connection
outside of any transaction. A wrong no costs notifications, and the poll is there; a wrong yes there cannot be.
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
    """Whether `connection`, which is behind a pooler, would hear what it listens to. A no may take a second.

    `connect_another` opens a connection by the same way; where it cannot, the answer is no. Raises what
    statements on `connection` raise.
    """
    try:
        another = connect_another()
    except DatabaseUnavailable:
        return False
    with closing(another):
        if another.backend.pid == connection.backend.pid:
            return False  # both were given the same process, so it belongs to neither
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
    """Gives the pid of the server process that listens now."""
    return _pid_after(connection, "listen_to_probe")


def _unlisten(connection: DeadlineConnection, listener: int) -> None:
    """A process that is shared should not listen for ever. It is met again after some tries, or by nobody."""
    for _ in range(CLEANUP_TRIES):
        if _pid_after(connection, "unlisten_probe") == listener:
            return


def _pid_after(connection: DeadlineConnection, name: str) -> int:
    """Send the statement `name`; gives the pid of the process that had it. One message, so it is one process."""
    text = f"{statement(name)};\n{statement('backend_pid')}".encode()
    with psycopg.ClientCursor(connection, row_factory=tuple_row) as cursor:
        cursor.execute(text)
        cursor.nextset()
        (pid,) = cursor.fetchall()[0]
        return int(pid)
