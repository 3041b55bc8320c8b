"""Row 39 of the fault list: a row, whatever is in it, costs itself alone."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.support.rows.odd_rows import (
    BY_PRODUCER,
    EXECUTORS,
    OF_OTHERS,
    PAYLOADS,
    Application,
    add_odd,
    application,
    as_producer,
    made_up_row,
    reason,
    statuses,
    wait_for_ends,
    without_limits,
)
from tests.support.supervisor.supervisor import (
    SHORT_LEASE,
    Connection,
    Supervisor,
    add_run,
    insert_run,
    run_row,
    wait_for_status,
)
from tests.support.waiting import wait_until

OF_EACH = 5
# Inputs that stopped the service for everybody when a producer inserted five rows of one of them.
STOPPED_EVERYBODY: list[dict[str, Any]] = [
    {"run_after": "4000-01-01 BC"},
    {"timeout_seconds": 1e15},
    {"retry_base_seconds": 3e38, "retry_max_seconds": 3e38},
]


class Rows:
    """Odd rows beside good ones, by one connection that inserts them."""

    def __init__(self, app: Application, producer: Connection) -> None:
        self.odd: dict[int, str] = {}
        self.good: list[int] = []
        self.refused = 0
        self._app = app
        self._producer = producer

    def add(self, payload: Mapping[str, Any], columns: Mapping[str, Any]) -> None:
        """Five rows with these columns, and a good one after each."""
        for _ in range(1 if "id" in columns or "unique_key" in columns else OF_EACH):
            run_id = add_odd(self._producer, payload, columns)
            if run_id is None:
                self.refused += 1
            else:
                self.odd[run_id] = str(columns)[:200]
            good = add_odd(self._producer, self._app.succeeds, {})
            assert good is not None
            self.good.append(good)

    def check(self, connection: Connection) -> None:
        """The good ones are done, and the odd ones have ended, as far as any worker takes from their queue."""
        assert self.odd or self.refused
        wait_for_ends(
            connection, [*self.good, *self.odd], timeout_s=180
        )  # some 2,000, each a program of its own
        assert statuses(connection, self.good) == {"SUCCESSFUL"}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("columns", STOPPED_EVERYBODY, ids=lambda columns: next(iter(columns)))
def test_39_five_rows_of_a_producer_stop_nobody(
    database_url: str, connection: Connection, tmp_path: Path, executor: str, columns: dict[str, Any]
) -> None:
    app = application(database_url, tmp_path, executor)
    with app.supervisor as supervisor, as_producer(database_url) as producer:
        workers = supervisor.worker_pids()
        rows = Rows(app, producer)
        rows.add(app.fails, columns)
        rows.check(connection)
        assert statuses(connection, list(rows.odd)) <= {"FAILED"}
        assert supervisor.worker_pids() == workers, "no worker has died"
        assert supervisor.stop() == 0


@pytest.mark.timeout(240)
@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("who", ["producer", "owner", "owner without limits"])
def test_39_rows_with_every_column_at_its_extremes_affect_only_themselves(
    database_url: str, connection: Connection, tmp_path: Path, executor: str, who: str
) -> None:
    app = application(database_url, tmp_path, executor)
    extremes = BY_PRODUCER if who == "producer" else BY_PRODUCER | OF_OTHERS
    if who == "owner without limits":
        without_limits(connection)
    inserting: Callable[[str], Connection] = as_producer if who == "producer" else connect
    with app.supervisor as supervisor, inserting(database_url) as producer:
        workers = supervisor.worker_pids()
        rows = Rows(app, producer)
        for column, values in extremes.items():
            for value in values:
                rows.add(app.succeeds, {column: value})
        for seconds in BY_PRODUCER["retry_base_seconds"]:
            rows.add(
                app.fails, {"retry_base_seconds": seconds, "retry_max_seconds": seconds, "max_attempts": 2}
            )
        rows.check(connection)
        assert supervisor.worker_pids() == workers, "no worker has died"
        assert supervisor.stop() == 0
    if who != "owner without limits":
        assert rows.refused > 100


@pytest.mark.timeout(240)
@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("who", ["producer", "owner", "owner without limits"])
def test_39_generated_rows_affect_only_themselves(
    database_url: str, connection: Connection, tmp_path: Path, executor: str, who: str
) -> None:
    app = application(database_url, tmp_path, executor)
    if who == "owner without limits":
        without_limits(connection)
    inserting: Callable[[str], Connection] = as_producer if who == "producer" else connect
    with app.supervisor as supervisor, inserting(database_url) as producer:
        workers = supervisor.worker_pids()

        @settings(max_examples=60, deadline=None, database=None, phases=[Phase.generate])
        @given(
            columns=made_up_row(BY_PRODUCER if who == "producer" else BY_PRODUCER | OF_OTHERS),
            payload=st.sampled_from([app.succeeds, app.fails, *PAYLOADS]),
        )
        def add_some(columns: Mapping[str, Any], payload: Any) -> None:
            rows = Rows(app, producer)
            rows.add(payload, columns)
            rows.check(connection)

        add_some()
        assert supervisor.worker_pids() == workers, "no worker has died"
        assert supervisor.stop() == 0


def connect(url: str) -> Connection:
    return psycopg.connect(url, autocommit=True)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("executor", EXECUTORS)
def test_39_a_row_that_cannot_be_read_is_failed_and_says_why(
    database_url: str, connection: Connection, tmp_path: Path, executor: str
) -> None:
    app = application(database_url, tmp_path, executor)
    without_limits(connection)
    unreadable: dict[str, dict[str, Any]] = {
        "years 2 to 9998": {"run_after": "4000-01-01 BC"},
        "counted": {"claims": 2**63 - 1},
        "dimension": {"worker_ids": [["a", "b"], ["c", "d"]]},
    }
    with app.supervisor as supervisor:
        workers = supervisor.worker_pids()
        runs = {
            word: [insert_run(connection, app.succeeds, **columns) for _ in range(OF_EACH)]
            for word, columns in unreadable.items()
        }
        good = [insert_run(connection, app.succeeds) for _ in range(OF_EACH)]
        wait_for_ends(connection, [*good, *(run_id for each in runs.values() for run_id in each)])
        assert statuses(connection, good) == {"SUCCESSFUL"}
        assert supervisor.worker_pids() == workers
        assert supervisor.stop() == 0
    for word, each in runs.items():
        assert statuses(connection, each) == {"FAILED"}
        assert all(reason(connection, run_id).startswith("unreadable: ") for run_id in each)
        assert all(word in reason(connection, run_id) for run_id in each)


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
def test_39_a_run_that_can_be_neither_claimed_nor_ended_is_skipped(
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
    """Then the database is at fault, and an operator may repair it."""
    refuse(connection, "new.status = 'RUNNING'", "P0001")
    with Supervisor(database_url, tmp_path, workers=2) as supervisor:
        runs = [add_run(connection, {"n": n}, priority=7) for n in range(10)]
        supervisor.wait_for_log("not this one", times=8)
        assert statuses(connection, runs) == {"PENDING"}
        connection.execute("drop trigger refuse on task_runs")
        wait_for_ends(connection, runs)
        assert statuses(connection, runs) == {"SUCCESSFUL"}


# --- what a dead worker held ---


def _run_of_a_killed_worker(
    supervisor: Supervisor, connection: Connection, tmp_path: Path, *, priority: int
) -> int:
    run_id = add_run(connection, {"wait_for": str(tmp_path / "go")}, priority=priority, max_attempts=9)
    wait_for_status(connection, run_id, "RUNNING")
    (victim,) = supervisor.booted_worker_pids()
    os.kill(victim, signal.SIGKILL)
    return run_id


@pytest.mark.timeout(120)
@pytest.mark.parametrize("sqlstate", SQLSTATES)
@pytest.mark.parametrize("is_last", [False, True], ids=["can be failed", "can be neither reset nor failed"])
def test_39_a_run_that_cannot_be_reset_does_not_block_other_runs(
    database_url: str, connection: Connection, tmp_path: Path, sqlstate: str, is_last: bool
) -> None:
    """Two workers are killed and replaced. The run of the second one is executed again."""
    refuse(
        connection, "new.status <> 'RUNNING'" + ("" if is_last else " and new.status <> 'FAILED'"), sqlstate
    )
    with Supervisor(database_url, tmp_path, workers=1, environ=SHORT_LEASE) as supervisor:
        odd, good = (
            _run_of_a_killed_worker(supervisor, connection, tmp_path, priority=priority)
            for priority in (7, 0)
        )
        (tmp_path / "go").touch()
        assert wait_for_status(connection, good, "SUCCESSFUL", timeout_s=40)["claims"] == 2
        wait_for_status(connection, odd, "RUNNING" if is_last else "FAILED")
        if is_last:
            connection.execute("drop trigger refuse on task_runs")
            wait_for_status(connection, odd, "SUCCESSFUL", timeout_s=40)
        else:
            assert "not this one" in reason(connection, odd)
        assert supervisor.stop() == 0


def test_39_a_row_with_a_live_worker_and_no_attempt_is_reset_with_that_worker(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    without_limits(connection)
    with Supervisor(database_url, tmp_path, workers=1) as supervisor:
        (worker_id,) = connection.execute("select id from reproq_workers").fetchone() or ("",)
        odd = insert_run(
            connection,
            {},
            status="RUNNING",
            leased_by=worker_id,
            lease_expires_at="2100-01-01 UTC",
            attempts=0,
            max_attempts=2**31 - 1,
        )
        running = insert_run(connection, {"wait_for": str(tmp_path / "go")})
        wait_for_status(connection, running, "RUNNING")
        os.kill(supervisor.booted_worker_pids()[0], signal.SIGKILL)
        (tmp_path / "go").touch()
        assert wait_for_status(connection, odd, "SUCCESSFUL")["attempts"] == 1
        assert wait_for_status(connection, running, "SUCCESSFUL")["attempts"] == 2
        wait_until(lambda: run_row(connection, odd)["leased_by"] is None, 10, "nobody to hold it")
