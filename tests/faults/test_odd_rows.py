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
    reason,
    statuses,
    wait_for_ends,
)
from tests.supervisor import Connection, Supervisor, add_run

OF_EACH = 5

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


# --- what the server refuses for a row, whatever is in it ---

REFUSE = """
create function refuse() returns trigger language plpgsql as $$
begin
    raise exception 'not this one' using errcode = '{sqlstate}';
end $$;
create trigger refuse before update on task_runs for each row
    when (old.priority = 7 and ({condition})) execute function refuse();
"""


def refuse(connection: Connection, condition: str, sqlstate: str) -> None:
    """Changes of runs of priority 7 are refused where `condition` is true of `old` and `new`."""
    connection.execute(REFUSE.format(condition=condition, sqlstate=sqlstate).encode())


# What a function of the owner's raises by itself, and what a value that is out of range does.
SQLSTATES = ("P0001", "22003", "ZZ999")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("sqlstate", SQLSTATES)
def test_39_a_run_whose_claim_is_always_refused_is_failed_and_the_others_are_run(
    database_url: str, connection: Connection, tmp_path: Path, sqlstate: str
) -> None:
    refuse(connection, "new.status = 'RUNNING'", sqlstate)
    with Supervisor(database_url, tmp_path, workers=2) as supervisor:
        workers = supervisor.worker_pids()
        odd = [add_run(connection, {"n": n}, priority=7) for n in range(OF_EACH)]
        good = [add_run(connection, {"n": n}) for n in range(20)]
        wait_for_ends(connection, [*odd, *good])
        assert statuses(connection, good) == {"SUCCESSFUL"}
        assert statuses(connection, odd) == {"FAILED"}
        assert "not this one" in reason(connection, odd[0])
        assert supervisor.worker_pids() == workers
        assert supervisor.stop() == 0


@pytest.mark.timeout(120)
@pytest.mark.parametrize("sqlstate", SQLSTATES)
def test_39_a_run_that_can_be_neither_claimed_nor_ended_is_passed_by(
    database_url: str, connection: Connection, tmp_path: Path, sqlstate: str
) -> None:
    refuse(connection, "true", sqlstate)
    with Supervisor(database_url, tmp_path, workers=2) as supervisor:
        workers = supervisor.worker_pids()
        odd = [add_run(connection, {"n": n}, priority=7) for n in range(OF_EACH)]
        good = [add_run(connection, {"n": n}) for n in range(40)]
        wait_for_ends(connection, good)
        assert statuses(connection, good) == {"SUCCESSFUL"}
        assert statuses(connection, odd) == {"PENDING"}
        supervisor.wait_for_log("can be neither claimed nor ended")
        connection.execute("drop trigger refuse on task_runs")
        assert supervisor.worker_pids() == workers
        assert supervisor.stop() == 0
    with Supervisor(database_url, tmp_path, workers=1):
        wait_for_ends(connection, odd)


def test_39_a_trigger_that_refuses_every_claim_fails_no_run(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """It is the database's fault then, and may be put right."""
    refuse(connection, "new.status = 'RUNNING'", "P0001")
    with Supervisor(database_url, tmp_path, workers=2) as supervisor:
        runs = [add_run(connection, {"n": n}, priority=7) for n in range(10)]
        supervisor.wait_for_log("not this one", times=8)
        assert statuses(connection, runs) == {"PENDING"}
        connection.execute("drop trigger refuse on task_runs")
        wait_for_ends(connection, runs)
        assert statuses(connection, runs) == {"SUCCESSFUL"}
