"""Row 39 of the fault list: a row, whatever is in it, costs itself alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.odd_rows import (
    EXECUTORS,
    add_odd,
    application,
    as_producer,
    statuses,
    wait_for_ends,
)
from tests.supervisor import Connection

# Inputs that stopped the service for everybody when a producer inserted five rows of one of them.
STOPPED_EVERYBODY: list[dict[str, Any]] = [
    {"run_after": "4000-01-01 BC"},
    {"timeout_seconds": 1e15},
]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("columns", STOPPED_EVERYBODY, ids=lambda columns: next(iter(columns)))
def test_39_five_rows_of_a_producer_stop_nobody(
    database_url: str, connection: Connection, tmp_path: Path, executor: str, columns: dict[str, Any]
) -> None:
    app = application(database_url, tmp_path, executor)
    with app.supervisor as supervisor, as_producer(database_url) as producer:
        workers = supervisor.worker_pids()
        good: list[int | None] = []
        odd: list[int | None] = []
        for _ in range(5):
            odd.append(add_odd(producer, app.fails, columns))
            good.append(add_odd(producer, app.succeeds, {}))
        runs = [run_id for run_id in (*good, *odd) if run_id is not None]
        wait_for_ends(connection, runs)
        assert statuses(connection, [run_id for run_id in good if run_id]) == {"SUCCESSFUL"}
        assert statuses(connection, [run_id for run_id in odd if run_id]) <= {"FAILED"}
        assert supervisor.worker_pids() == workers, "no worker has died"
        assert supervisor.stop() == 0
