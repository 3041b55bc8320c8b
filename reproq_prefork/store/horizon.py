"""Who holds back the removal of dead rows, by which every queue in the database gets slower."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg

from reproq_prefork.store.fetching import fetch
from reproq_prefork.store.statements import statement

MIN_HELD_S = 60.0
MIN_TRANSACTIONS = 100_000  # where it is not known since when
MAX_HOLDERS = 5


@dataclass(frozen=True, slots=True)
class HorizonHolder:
    """A session, a prepared transaction, a replication slot, or a replica that sends its feedback (`kind`).

    `name`: of the application, the prepared transaction or the slot. `held_s`: since when; None where that is not
    known. `transactions`: how many have begun since. All else is None where there is none, or it may not be seen.
    """

    kind: str
    pid: int | None
    name: str | None
    login: str | None
    database: str | None
    state: str | None
    held_s: float | None
    transactions: int


def horizon_holders(
    connection: psycopg.Connection[Any],
    *,
    min_held_s: float = MIN_HELD_S,
    min_transactions: int = MIN_TRANSACTIONS,
) -> tuple[HorizonHolder, ...]:
    """Those who have held it for so long, the oldest first. Raises what `fetch` raises."""
    rows = fetch(
        connection,
        statement("horizon_holders"),
        {"min_seconds": min_held_s, "min_transactions": min_transactions, "max_holders": MAX_HOLDERS},
    )
    return tuple(
        HorizonHolder(
            row.kind,
            row.pid,
            row.name,
            row.login,
            row.database,
            row.state,
            row.held_seconds,
            row.transactions,
        )
        for row in rows
    )
