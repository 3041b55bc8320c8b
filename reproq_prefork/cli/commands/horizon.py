"""Describes what holds back the removal of dead rows."""

from __future__ import annotations

from reproq_prefork.cli.text import how_many, rough_duration
from reproq_prefork.store.horizon import HorizonHolder
from reproq_prefork.text.printable import printable, quoted


def held_back(holder: HorizonHolder) -> str:
    """Sentences: what it is, what follows, what to do."""
    since = how_many(holder.transactions, "transaction")
    if holder.held_s is not None:
        since = f"{rough_duration(holder.held_s)} ({since})"
    return (
        f"{_who(holder)} holds back vacuum for {since}: dead rows stay, and every claim gets slower. "
        f"{_what_to_do(holder)}"
    )


def _who(holder: HorizonHolder) -> str:
    name = printable(holder.name or "")
    match holder.kind:
        case "prepared":
            return f"The prepared transaction {quoted(name)} of {_details(holder)}"
        case "slot":
            return f"The replication slot {quoted(name)}, {holder.state},"
        case "replica":
            return f"The replica {quoted(name)} (process {holder.pid}, hot_standby_feedback)"
        case _:
            return f"Process {holder.pid} ({', '.join(part for part in (name, _details(holder)) if part)})"


def _details(holder: HorizonHolder) -> str:
    parts = (
        holder.login and f"login {printable(holder.login)}",
        holder.database and f"database {printable(holder.database)}",
        holder.state,
    )
    return ", ".join(part for part in parts if part)


def _what_to_do(holder: HorizonHolder) -> str:
    match holder.kind:
        case "prepared":
            return "Commit it or roll it back (COMMIT PREPARED, ROLLBACK PREPARED)."
        case "slot":
            return "If nobody needs it any more, drop it: select pg_drop_replication_slot(…)."
        case "replica":
            return "End the long query on the replica."
        case _:
            return f"End its transaction, or the session: select pg_terminate_backend({holder.pid})."
