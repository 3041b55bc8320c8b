"""A peer that is installed, and has a queue: fill it, run its workers, wait until it is empty."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg

from benchmarks.bench import Bench
from benchmarks.children import output_of, running
from benchmarks.peers.environments import Environment, environment_of
from benchmarks.peers.peer import Peer, Runtime, Service, Watch
from benchmarks.servers import new_database
from benchmarks.subject.installation import CHECKOUT
from benchmarks.subject.queue import Connection, Drain, TasksMissing
from benchmarks.waiting import wait_until

STARTS_FILE = "BENCH_STARTS"
POLL_S = 0.02  # where the end is when a poll finds the queue empty


@dataclass(frozen=True)
class InstalledPeer:
    peer: Peer
    environment: Environment
    url: str  # of its queue
    scratch: Path

    @property
    def starts(self) -> Path:
        """Where the bodies of its `note` tasks write when they started."""
        return self.scratch / f"{self.peer.module}.starts"

    def do(self, verb: str, *words: object) -> str:
        command = [*self.environment.program, verb, *map(str, words)]
        return output_of(command, cwd=self.cwd, environ=self.environ)

    @contextmanager
    def working(self) -> Iterator[list[subprocess.Popen[bytes]]]:
        """Its workers, for the time of the block."""
        command = [*self.environment.program, "work", *([self.peer.option] if self.peer.option else [])]
        log = self.scratch / f"{self.peer.module}.log"
        with running(
            command, count=self.peer.processes, cwd=self.cwd, environ=self.environ, log=log
        ) as children:
            yield children

    def drain(self, runs: int) -> Drain:
        """Fill its queue, start its workers, and wait until all is recorded as done. Raises TasksMissing."""
        self.do("enqueue", runs)
        if self.peer.watch is None:
            with self.working():
                drain = Drain(**json.loads(self.do("watch", runs)))
        else:
            with psycopg.connect(self.url, autocommit=True) as connection:
                connection.execute("vacuum analyze")
                with self.working():
                    drain = _watched(connection, self.peer.watch, runs)
        if drain.done != runs:
            raise TasksMissing(drain.done, runs)
        return drain

    @property
    def cwd(self) -> Path:
        return self.environment.directory if self.peer.runtime is Runtime.NODE else CHECKOUT

    @property
    def environ(self) -> dict[str, str]:
        bin_directory = self.environment.directory / "bin"
        return {
            "PATH": f"{bin_directory}:{os.environ['PATH']}",
            "HOME": os.environ.get("HOME", "/"),
            "PYTHONPATH": str(CHECKOUT),
            "BENCH_URL": self.url,
            STARTS_FILE: str(self.starts),
        }


def installed(peer: Peer, bench: Bench, redis_url: str | None) -> InstalledPeer:
    """Install `peer` and make its schema, in a database of its own. Raises CannotInstall, ChildFailed."""
    environment = environment_of(peer, bench.environments, checkout=CHECKOUT)
    if peer.service is Service.REDIS:
        if redis_url is None:
            raise FileNotFoundError("there is no redis-server on this machine")
        # The second RQ must not meet the first one's jobs; each of them empties its database first.
        url = redis_url
    else:
        url = new_database(bench.server.url, f"peer_{peer.module}")
    made = InstalledPeer(peer, environment, url, bench.scratch)
    made.do("prepare")
    return made


def _watched(connection: Connection, watch: Watch, runs: int) -> Drain:
    if watch.span is not None:
        wait_until(lambda: bool(_value(connection, watch.is_drained)), "the drain", pause_s=0.1)
        return _span(connection, watch.span, runs)
    assert watch.first_start is not None
    first: float | None = None
    while first is None:
        first = _value(connection, watch.first_start)
        time.sleep(POLL_S)
    wait_until(lambda: bool(_value(connection, watch.is_drained)), "the drain", pause_s=POLL_S)
    last = _value(connection, "select extract(epoch from clock_timestamp())::float8")
    return Drain(runs, last - first)


def _span(connection: Connection, query: LiteralString, runs: int) -> Drain:
    """Where completions are recorded apart from the queue, they may come a little after it is empty."""

    def is_complete() -> bool:
        row = connection.execute(query).fetchone()
        return row is not None and row[0] >= runs

    wait_until(is_complete, "the recording of all completions", deadline_s=20.0)
    row = connection.execute(query).fetchone()
    assert row is not None
    return Drain(*row)


def _value(connection: Connection, query: LiteralString) -> Any:
    row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]
