"""The primary dies, its replica is promoted, and everybody goes on by the same DATABASE_URL."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from pathlib import Path

import psycopg
import pytest

from reproq_prefork import enqueue
from tests.support.postgres.databases import apply_migrations, as_login
from tests.support.postgres.replica import promote, replica_of, url_of_either
from tests.support.postgres.servers import embedded_server
from tests.support.rows import audit
from tests.support.supervisor.supervisor import Connection, Supervisor, diary
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(120)

BEFORE, AFTER = 300, 200  # runs that are enqueued before the primary dies, and after
LAST_MOMENTS_S = 2.0  # what an asynchronous replica may not have had when the primary died


@pytest.mark.parametrize("synchronous", [True, False], ids=["synchronous", "asynchronous"])
def test_after_a_failover_all_processes_go_on_and_nothing_on_the_replica_is_lost(
    tmp_path: Path, synchronous: bool
) -> None:
    pages = tmp_path / "diary"
    with embedded_server() as primary, contextlib.ExitStack() as stack:
        apply_migrations(primary.url)
        with psycopg.connect(primary.url, autocommit=True) as connection:
            audit.install(connection)
            replica = stack.enter_context(replica_of(primary))
            if synchronous:
                connection.execute("alter system set synchronous_standby_names = '*'")
                connection.execute("select pg_reload_conf()")
        url = url_of_either(primary, replica)
        supervisor = stack.enter_context(Supervisor(url, tmp_path, workers=3))

        told: dict[int, float] = {}  # the numbers of the runs that were committed, and when
        _enqueue(url, pages, told, BEFORE)
        wait_until(lambda: len(list(diary(pages))) > BEFORE, 40, "half of them to be done")
        died_at = time.monotonic()
        primary.stop("immediate")
        promote(replica)
        _enqueue(url, pages, told, BEFORE + AFTER)

        with psycopg.connect(replica.url, autocommit=True) as survivor:
            wait_until(lambda: _unfinished(survivor) == 0, 60, "all to be done")
            assert supervisor.stop() == 0
            rows = survivor.execute(
                "select id, (payload ->> 'number')::int, status from task_runs"
            ).fetchall()
            ends = audit.final_transitions(survivor)
        assert {status for _, _, status in rows} == {"SUCCESSFUL"}
        assert ends == dict.fromkeys((run_id for run_id, _, _ in rows), 1)

        lost = told.keys() - {number for _, number, _ in rows}
        starts = Counter(run_id for what, run_id, *_ in diary(pages) if what == "start")
        if synchronous:
            assert not lost
            assert set(starts.values()) == {1}
        else:
            assert all(died_at - told[number] < LAST_MOMENTS_S for number in lost)


def _enqueue(url: str, pages: Path, told: dict[int, float], until: int) -> None:
    """One after the other, by a producer that connects again and leaves out what it does not know."""
    number = len(told)
    gives_up_at = time.monotonic() + 40
    while number < until:
        assert time.monotonic() < gives_up_at, "the producer cannot go on"
        with (
            contextlib.suppress(psycopg.OperationalError),
            psycopg.connect(as_login(url, "producer"), autocommit=True) as producer,
        ):
            while number < until:
                enqueue(producer, {"number": number, "diary": str(pages)}, max_attempts=10)
                told[number] = time.monotonic()
                number += 1


def _unfinished(connection: Connection) -> int:
    row = connection.execute(
        "select count(*) from task_runs where status in ('PENDING', 'RUNNING')"
    ).fetchone()
    assert row is not None
    return int(row[0])
