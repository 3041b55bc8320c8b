"""Rows as a producer may insert them by plain SQL, and that nobody can run: each is refused, or ends FAILED alone.

Where it is not the payload that is odd, it is that of a task which fails twice: so what is odd is read again for
the second attempt, and the run ends FAILED even where it is none the worse for it.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg import sql

from tests.chaos import bodies

Columns = Mapping[str, object]

TOGETHER = 5  # by one transaction
ROWS: Mapping[str, Columns] = {
    "a number of too many digits": {
        "payload": '{"v": 1, "task": "tests.chaos.bodies.nothing", "args": [NUMBER, 1e131071]}'
    },
    "a task that is none": {"payload": '{"v": 1, "task": "os.system", "args": [NUMBER]}'},
    "a task that is not there": {"payload": '{"v": 1, "task": "tests.chaos.bodies.gone", "args": [NUMBER]}'},
    "a call of another age": {"payload": '{"v": 9, "task": "tests.chaos.bodies.nothing", "args": [NUMBER]}'},
    "a time BC": {"run_after": "4000-01-01 BC"},
    "a timeout of ages": {"timeout_seconds": 1e15},
    "a retry beyond all time": {"retry_base_seconds": 3e38, "retry_max_seconds": 3e38},
}
CHOICES = list(ROWS)


def insert(connection: psycopg.Connection[Any], dice: random.Random, numbers: Sequence[int]) -> None:
    """All or none of them. Raises psycopg.Error."""
    columns = ROWS[dice.choice(CHOICES)]
    with connection.transaction():
        for number in numbers:
            payload = str(columns.get("payload", bodies.hopeless.spec(number).canonical))
            payload = payload.replace("NUMBER", str(number))
            digest = hashlib.sha256(payload.encode()).hexdigest()
            _insert(connection, {"max_attempts": 2, **columns, "payload": payload, "spec_hash": digest})


def _insert(connection: psycopg.Connection[Any], columns: Columns) -> None:
    statement = sql.SQL("insert into task_runs ({}) values ({})").format(
        sql.SQL(", ").join(map(sql.Identifier, columns)),
        sql.SQL(", ").join(sql.Placeholder() * len(columns)),
    )
    connection.execute(statement, list(columns.values()))
