"""Which server has answered, and whether it can be used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MIN_SERVER_VERSION = 14
ENCODING = "UTF8"


@dataclass(frozen=True, slots=True)
class Server:
    """What a server says about itself at the start of a connection.

    `system` is its system identifier, which `initdb` makes. The replicas of a server share it. A server that was
    restored from a dump, or made by pg_upgrade, has another one. None: nobody asked, or the server does not say.
    """

    version: str
    version_number: int
    is_standby: bool
    is_read_only: bool
    encoding: str
    replication_role: str
    system: int | None = None

    @classmethod
    def of_row(cls, row: Any, system: int | None) -> Server:
        return cls(
            version=row.version,
            version_number=row.version_number,
            is_standby=row.is_standby,
            is_read_only=row.is_read_only,
            encoding=row.encoding,
            replication_role=row.replication_role,
            system=system,
        )


def why_unusable(server: Server, *, for_writing: bool, system: int | None = None) -> str:
    """Why such a server cannot be used; empty if it can.

    `system`: the identifier that it must have, if it reports one.
    """
    if server.version_number < MIN_SERVER_VERSION * 10_000:
        return f"it runs PostgreSQL {server.version}, and version {MIN_SERVER_VERSION} or newer is needed"
    if not for_writing:
        return ""
    if system is not None and server.system is not None and server.system != system:
        return (
            f"another server answers there now: its system identifier is {server.system}, and this master has "
            f"worked with {system} so far. If the database was moved on purpose, reload (SIGHUP) or restart "
            "reproq-prefork"
        )
    if server.is_standby:
        return "it is a hot standby, which cannot be written to; name the primary"
    if server.is_read_only:
        return "it refuses to write, since default_transaction_read_only is on"
    if server.encoding != ENCODING:
        return (
            f"its encoding is {server.encoding}, and {ENCODING} is needed, since payloads and errors may hold any "
            f"character: create a database with ENCODING '{ENCODING}' TEMPLATE template0"
        )
    if server.replication_role != "origin":
        return (
            f"session_replication_role is {server.replication_role} there, so the triggers of task_runs would not "
            "fire: set it to origin for this login and this database"
        )
    return ""
