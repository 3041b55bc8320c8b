"""The smallest kill storm: two masters on one host, and a worker killed every 200 ms."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.support.rows import audit
from tests.support.supervisor.supervisor import Connection, Supervisor, diary
from tests.support.waiting import wait_until

RUNS = 2_000
KILL_INTERVAL_S = 0.2


@pytest.mark.timeout(180)
def test_two_masters_under_kills_lose_nothing_finish_nothing_twice_and_charge_the_kills(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    dice = random.Random(seed)
    pages = tmp_path / "diary"
    audit.install(connection)
    connection.execute(
        "insert into task_runs (payload, spec_hash, max_attempts)"
        " select jsonb_build_object('n', n, 'diary', %s::text), repeat('0', 64), 1000"
        " from generate_series(1, %s) n",
        [str(pages), RUNS],
    )
    environ = {"REPROQ_LOG_LEVEL": "info", "REPROQ_LEASE": "6s"}
    kills = 0
    with (
        Supervisor(database_url, tmp_path, workers=4, environ=environ) as first,
        Supervisor(database_url, tmp_path, workers=4, environ=environ) as second,
    ):
        while _unfinished(connection):
            victims = [*first.booted_worker_pids(), *second.booted_worker_pids()]
            if victims:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(dice.choice(victims), signal.SIGKILL)
                    kills += 1
            time.sleep(KILL_INTERVAL_S)  # the pace of the kills is what is asked for
        wait_until(lambda: not _unfinished(connection), 20, "every run to be final")
        assert (first.stop(), second.stop()) == (0, 0)

    assert kills > 20
    rows = connection.execute(
        "select id, status, attempts, claims, cardinality(worker_ids), errors from task_runs"
    ).fetchall()
    assert Counter(row[1] for row in rows) == {"SUCCESSFUL": RUNS}
    assert Counter(audit.final_transitions(connection).values()) == {1: RUNS}
    assert audit.edges(connection) <= {
        ("PENDING", "RUNNING"),
        ("RUNNING", "PENDING"),
        ("RUNNING", "SUCCESSFUL"),
    }

    # Each attempt beyond the first is a kill, and is told as one.
    for run_id, _, attempts, claims, worker_ids, errors in rows:
        assert attempts == worker_ids == len(errors) + 1, run_id
        assert claims >= attempts
        assert {entry["kind"] for entry in errors} <= {"worker_lost"}
    assert sum(row[2] - 1 for row in rows) <= kills

    # No two executions of one run side by side, and a second one only after a kill.
    last_end: dict[int, float] = {}
    starts: Counter[int] = Counter()
    for what, run_id, _, _, at in sorted(diary(pages), key=lambda line: line[4]):
        if what == "start":
            starts[run_id] += 1
        else:
            last_end[run_id] = at
    attempts_of = {row[0]: row[2] for row in rows}
    for run_id, times in starts.items():
        assert times <= attempts_of[run_id]
    assert set(last_end) == set(attempts_of)


def _unfinished(connection: Connection) -> int:
    row = connection.execute(
        "select count(*) from task_runs where status in ('PENDING', 'RUNNING')"
    ).fetchone()
    assert row is not None
    return int(row[0])
