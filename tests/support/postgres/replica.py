"""A streaming replica of an embedded server, to be promoted."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from reproq_prefork.demo.postgres import EmbeddedPostgres
from reproq_prefork.demo.postgres_programs import PostgresPrograms, log_tail
from tests.support.waiting import wait_until

BACKUP_TIMEOUT_S = 60
MAJOR = 18


@contextlib.contextmanager
def replica_of(primary: EmbeddedPostgres) -> Iterator[EmbeddedPostgres]:
    """It follows the primary when this begins."""
    with tempfile.TemporaryDirectory(prefix="reproq-replica-") as name:
        home = Path(name)
        (home / "password").touch(0o600)
        (home / "password").write_text((primary.home / "password").read_text())
        programs = PostgresPrograms(MAJOR)
        programs.adopt(home)
        options = ["--pgdata=data", "--write-recovery-conf", "--checkpoint=fast", "--no-sync"]
        backup = programs.spawn("pg_basebackup", [*options, f"--dbname={primary.url}"], home)
        assert backup.wait(BACKUP_TIMEOUT_S) == 0, log_tail(home)
        with (
            EmbeddedPostgres(home, settings={"fsync": "off"}) as replica,
            psycopg.connect(primary.url, autocommit=True) as connection,
        ):
            wait_until(lambda: _followers(connection) == 1, 20, "the replica to follow")
            yield replica


def _followers(connection: psycopg.Connection[tuple[int]]) -> int:
    row = connection.execute("select count(*) from pg_stat_replication where state = 'streaming'").fetchone()
    assert row is not None
    return row[0]


def promote(replica: EmbeddedPostgres) -> None:
    with psycopg.connect(replica.url, autocommit=True) as connection:
        assert connection.execute("select pg_promote()").fetchone() == (True,)


def url_of_either(primary: EmbeddedPostgres, replica: EmbeddedPostgres) -> str:
    """Whichever of them can be written to."""
    first, second = urlsplit(primary.url), urlsplit(replica.url)
    places = f"{first.hostname}:{first.port},{second.hostname}:{second.port}"
    netloc = f"{first.username}:{first.password}@{places}"
    return first._replace(netloc=netloc, query="target_session_attrs=read-write&connect_timeout=3").geturl()
