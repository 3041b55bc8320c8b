"""Connections of Django, in processes that fork and between tasks: none is shared with a child or left open."""

from __future__ import annotations

from typing import Any

from django.core.cache import BaseCache, caches
from django.db import connections
from django.utils.module_loading import import_string
from psycopg.pq import TransactionStatus

from reproq_prefork.model.outcome import Failure, FailureKind


def close_connections() -> None:
    """Close connections that the import of the application opened, and pools with their threads."""
    connections.close_all()
    for connection in connections.all(initialized_only=True):
        close_pool = getattr(connection, "close_pool", None)
        if close_pool is not None:
            close_pool()


def forget_inherited_connections() -> list[object]:
    """In a fork: start without connections, and change nothing that the parent has.

    Keep what this returns: its finaliser would send something on a socket of the parent.
    """
    inherited: list[object] = []
    for connection in connections.all(initialized_only=True):
        if connection.connection is not None:
            inherited.append(connection.connection)
            connection.connection = None
        pools = getattr(connection, "_connection_pools", None)
        if pools:
            inherited.extend(pools.values())
            pools.clear()
    return inherited


def close_open_transactions() -> Failure | None:
    """Close each connection on which the task has left a transaction open. Returns the failure that this is.

    A later task would use the connection, and its changes would be lost with that transaction.
    """
    left = [
        connection for connection in connections.all(initialized_only=True) if _is_in_transaction(connection)
    ]
    for connection in left:
        connection.close()
    if not left:
        return None
    aliases = ", ".join(connection.alias for connection in left)
    return Failure(
        FailureKind.FAILED,
        f"the task has left a transaction open (in DATABASES: {aliases}), so what it has changed there is lost",
    )


def caches_need_closing() -> bool:
    """Whether any cache of the settings does something when it is closed. Most do not, and asking each of them
    after each task takes longer than the rest of what is closed then.
    """
    try:
        backends = [import_string(params["BACKEND"]) for params in caches.settings.values()]
    except (ImportError, KeyError):
        return True  # its first use says what is wrong with it
    return any(backend.close is not BaseCache.close for backend in backends)


def close_after_task(*, was_stopped: bool, closes_caches: bool) -> None:
    """As Django does after a request. `was_stopped`: the task was interrupted."""
    for connection in connections.all(initialized_only=True):
        if was_stopped:
            # This may have been in the middle of a query, and Django does not know that.
            connection.errors_occurred = True
        if connection.queries_log:
            connection.queries_log.clear()
        connection.close_if_unusable_or_obsolete()
    if closes_caches:
        caches.close_all()


def _is_in_transaction(connection: Any) -> bool:
    if connection.connection is None:
        return False
    if connection.in_atomic_block or connection.autocommit != connection.settings_dict["AUTOCOMMIT"]:
        return True
    info = getattr(connection.connection, "info", None)  # psycopg's; other drivers do not say it
    return getattr(info, "transaction_status", TransactionStatus.IDLE) != TransactionStatus.IDLE
