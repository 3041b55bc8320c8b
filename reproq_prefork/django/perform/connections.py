"""Django's connections in processes that fork: none is ever shared with a child."""

from __future__ import annotations

from django.db import connections


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
