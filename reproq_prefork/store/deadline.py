"""A connection on which no statement can hang, even if the server does."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg

from reproq_prefork.store.inbox import Inbox
from reproq_prefork.store.outcomes import OF_PYTHON, NotSent
from reproq_prefork.store.server import Server

T = TypeVar("T")
CLIENT_DEADLINE_S = 8.0  # above the server's statement_timeout, so that the server's own answer comes first
LATE_READS = 1_000  # of an answer that is still arriving when the time is over


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """The server's process for a connection.

    A transaction pooler uses another process for each transaction. It is recognised by the pid: at the start it
    invents one, which is not the pid of the process that answers.
    """

    pid: int
    pooled: bool


@dataclass(frozen=True, slots=True)
class FirstStatements:
    """What is sent before a statement, in the same message and so in the same transaction; `count` of them."""

    text: str
    count: int

    @classmethod
    def of(cls, *statements: str) -> FirstStatements:
        return cls(";\n".join(statements), len(statements))


class DeadlineConnection(psycopg.Connection[Any]):
    """A psycopg connection that gives up a statement after `deadline_s`, and knows its `server` and `backend`.

    `first`: what is sent before each statement: while the connection is set up, and always behind a pooler.
    `inbox`: if the connection listens, the place for its notifications.
    """

    deadline_s: float = CLIENT_DEADLINE_S
    server: Server
    backend: ServerProcess
    first: FirstStatements | None = None
    inbox: Inbox | None = None

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **kwargs: Any) -> T:
        if self.inbox is not None:
            gen = _emptying(gen, self.inbox)
        return super().wait(_with_deadline(gen, self.deadline_s), *args, **kwargs)


def _with_deadline(gen: Generator[Any, Any, T], seconds: float) -> Generator[Any, Any, T]:
    """Pass a psycopg generator through, but raise an error once it has waited for `seconds`.

    The waiting loop resumes the generator with nothing ready after each interval. What has arrived when the time
    is over still counts, since this process may have been stopped meanwhile. But only a bounded amount of it is
    read: notifications may arrive without end before the answer.

    psycopg makes the message before it first waits. So an error with a value before that is `NotSent`.
    """
    gives_up_at = time.monotonic() + seconds
    late_reads = 0
    try:
        try:
            awaited = next(gen)
        except (psycopg.DataError, psycopg.ProgrammingError, psycopg.NotSupportedError, *OF_PYTHON) as error:
            raise NotSent(str(error)) from error
        while True:
            ready = yield awaited
            if time.monotonic() > gives_up_at:
                late_reads += 1
                if not ready or late_reads > LATE_READS:
                    raise psycopg.OperationalError(f"no answer from the server within {seconds:g} s")
            awaited = gen.send(ready)
    except StopIteration as finished:
        return finished.value  # type: ignore[no-any-return]


def _emptying(gen: Generator[Any, Any, T], inbox: Inbox) -> Generator[Any, Any, T]:
    """Pass a psycopg generator through, and take the notifications that arrive before the answer."""
    inbox.statement_begins()
    try:
        awaited = next(gen)
        while True:
            ready = yield awaited
            awaited = gen.send(ready)
            inbox.empty_libpq()
            inbox.check_patience()
    except StopIteration as finished:
        return finished.value  # type: ignore[no-any-return]
