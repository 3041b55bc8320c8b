"""Plain producers of odd rows: they write into a queue's table or list, and may only enqueue."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import psycopg
from psycopg import sql

from benchmarks.peers.lifecycle import InstalledPeer
from benchmarks.storm.odd_inputs import MARK, MESSAGES, OURS, PEERS, OddInput, OddRows

PLAIN = "plain_producer"


class Producer(Protocol):
    @property
    def inputs(self) -> Sequence[OddInput]: ...

    def empty(self) -> None:
        """Nothing is left in the queue of what was tried before."""

    def add(self, odd: OddInput, count: int) -> None: ...

    def fates(self) -> Mapping[str, int]:
        """What has become of those that were added last: a word for each, and how many."""


@dataclass
class TableProducer:
    """One with INSERT and SELECT on the table, and nothing else."""

    url: str
    rows: OddRows
    empty: Callable[[], None]
    _ids: list[str] = field(default_factory=list)
    _refused: int = 0

    @property
    def inputs(self) -> Sequence[OddInput]:
        return self.rows.inputs

    def add(self, odd: OddInput, count: int) -> None:
        self._ids, self._refused = [], 0
        with psycopg.connect(self.url, autocommit=True) as connection:
            self._become_plain(connection)
            for _ in range(count):
                values = {**self.rows.good, **odd.columns}
                if self.rows.own_id:
                    values["id"] = str(uuid.uuid4())
                statement = sql.SQL("insert into {} ({}) values ({}) returning id::text").format(
                    sql.Identifier(self.rows.table),
                    sql.SQL(", ").join(map(sql.Identifier, values)),
                    # Literals, and so of whatever type the column has.
                    sql.SQL(", ").join(map(sql.Literal, values.values())),
                )
                try:
                    row = connection.execute(statement).fetchone()
                except (psycopg.DataError, psycopg.IntegrityError):
                    self._refused += 1
                else:
                    assert row is not None
                    self._ids.append(row[0])

    def _become_plain(self, connection: psycopg.Connection) -> None:
        # The server has one for all contestants, which may make it at the same time.
        with suppress(psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):
            connection.execute(sql.SQL("create role {}").format(sql.Identifier(PLAIN)))
        names = map(sql.Identifier, (self.rows.table, PLAIN))
        connection.execute(sql.SQL("grant select, insert on {} to {}").format(*names))
        if self.rows.also:
            connection.execute(self.rows.also)
        connection.execute(sql.SQL("set role {}").format(sql.Identifier(PLAIN)))

    def fates(self) -> Mapping[str, int]:
        query = sql.SQL("select status::text, count(*) from {} where id::text = any(%s) group by 1").format(
            sql.Identifier(self.rows.table)
        )
        with psycopg.connect(self.url, autocommit=True) as connection:
            found: dict[str, int] = dict(connection.execute(query, [self._ids]).fetchall())
        gone = len(self._ids) - sum(found.values())
        return {
            name: count for name, count in {**found, "gone": gone, "refused": self._refused}.items() if count
        }


@dataclass
class ListProducer:
    """One that may RPUSH to the list of a broker. Its program does it: only its environment has the client."""

    installed: InstalledPeer
    inputs: Sequence[OddInput]
    _added: int = 0

    def empty(self) -> None:
        self.installed.do("prepare")

    def add(self, odd: OddInput, count: int) -> None:
        self.installed.do("push", odd.message, MARK, count)
        self._added = count

    def fates(self) -> Mapping[str, int]:
        found: dict[str, int] = json.loads(self.installed.do("marked", MARK))
        gone = self._added - sum(found.values())
        return {name: count for name, count in {**found, "gone": gone}.items() if count}


def our_producer(url: str) -> Producer:
    def empty() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("truncate task_runs")

    return TableProducer(url, OURS, empty)


def producer_of(installed: InstalledPeer) -> Producer:
    module = installed.peer.module
    if module in MESSAGES:
        return ListProducer(installed, MESSAGES[module])

    def empty() -> None:
        installed.do("enqueue", 0)

    return TableProducer(installed.url, PEERS[module], empty)
