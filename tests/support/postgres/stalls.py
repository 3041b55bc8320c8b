"""A server process that is stopped inside a commit, as by a disk that stalls.

Nothing of the server's ends such a wait: its timeouts do not count in a commit, and `pg_terminate_backend` is
heard only afterwards. With `commit_delay` each commit sleeps for a tenth of a second where it is about to write,
so that the process can be met there. It has the lock for that, so all other commits wait behind it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

from reproq_prefork.demo.postgres import EmbeddedPostgres
from tests.support.postgres.databases import apply_migrations
from tests.support.supervisor.supervisor import Connection
from tests.support.unix.memory import shared_memory
from tests.support.waiting import wait_until

COMMIT_DELAY_US = 100_000
# How much of a statement pg_stat_activity shows: behind a pooler, settings stand before each of ours.
LONG_QUERIES = {"track_activity_query_size": "16384"}


@contextlib.contextmanager
def server_with_slow_commits() -> Iterator[EmbeddedPostgres]:
    with (
        tempfile.TemporaryDirectory(prefix="reproq-stalls-", dir=shared_memory()) as name,
        EmbeddedPostgres(Path(name), settings={"fsync": "on", **LONG_QUERIES}) as server,
    ):
        apply_migrations(server.url)
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(f"alter system set commit_delay = {COMMIT_DELAY_US}".encode())
            connection.execute("alter system set commit_siblings = 0")
            connection.execute("select pg_reload_conf()")
        yield server


def backend_of_worker(connection: Connection) -> int:
    """The server process of the one worker that is registered."""
    row = connection.execute("select backend_pid from reproq_workers").fetchone()
    assert row is not None
    return int(row[0])


@contextlib.contextmanager
def stopped_in_its_next_claim(connection: Connection, seconds: float) -> Iterator[None]:
    """Stop the server process that commits the next claim, run the block, and let it go on after `seconds`."""
    backend = wait_until(lambda: _in_the_commit_of_a_claim(connection), 10, "the commit of a claim")
    os.kill(backend, signal.SIGSTOP)
    goes_on_at = time.monotonic() + seconds
    try:
        yield
        time.sleep(max(0.0, goes_on_at - time.monotonic()))
    finally:
        os.kill(backend, signal.SIGCONT)


def _in_the_commit_of_a_claim(connection: Connection) -> int:
    """The pid; 0: there is none."""
    rows = connection.execute(
        "select pid from pg_stat_activity"
        " where state = 'active' and query like '%settled%' and pid <> pg_backend_pid()"
    ).fetchall()
    return next((pid for (pid,) in rows if _sleeps(pid)), 0)


def _sleeps(pid: int) -> bool:
    """By commit_delay: a nanosleep, and before PostgreSQL 17 a select. Who waits for a client is in epoll."""
    wait = Path(f"/proc/{pid}/wchan").read_text()
    return wait.startswith(("hrtimer_nanosleep", "do_select", "poll_schedule"))
