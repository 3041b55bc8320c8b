"""Finds what holds back the removal of dead rows, which makes every queue in the database slower."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg

from reproq_prefork.store.fetching import fetch
from reproq_prefork.store.statements import statement

MIN_HELD_S = 60.0
MIN_TRANSACTIONS = 100_000  # used if the time is not known
MAX_HOLDERS = 5


@dataclass(frozen=True, slots=True)
class HorizonHolder:
    """A session, a prepared transaction, a replication slot, or a replica that sends its feedback (`kind`).

    `name`: of the application, the prepared transaction or the slot. `held_s`: for how long; None: not known.
    `transactions`: how many have begun since. Any other field is None if there is no value, or we may not see it.
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
    """Those that have held it for at least so long, the oldest first. Raises what `fetch` raises."""
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
