"""Row 48 of the fault list: the server refuses what is to be written about one run, and takes all else."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from reproq_prefork import cancel
from tests.support.rows.refusals import (
    ANY_CHANGE,
    ANY_END,
    RESULT_OR_ERRORS,
    SUCCESS_WITH_A_RESULT,
    doom,
    refuse,
    relent,
)
from tests.support.supervisor.shop import Shop
from tests.support.supervisor.supervisor import (
    TASK_PROGRAM,
    Connection,
    Supervisor,
    add_run,
    run_row,
    wait_for_status,
)
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(120)

EXECUTORS = ["command", "fork", "inline"]
ENDED_WITHIN_S = 20.0  # the patience of a worker, three times
DRAINED_WITHIN_S = 12.0

GATED = """
@task
def gated(pages, wait_for, fails=False):
    with open(pages, "a") as diary:
        diary.write("start\\n")
    while not os.path.exists(wait_for):
        time.sleep(0.005)
    if fails:
        raise ValueError("x" * 1000)
    return "a result"
"""


class Host:
    """One worker, and runs of it that wait until they are let go."""

    def __init__(self, database_url: str, connection: Connection, directory: Path, executor: str) -> None:
        self.connection = connection
        self._shop = Shop(directory, GATED)
        self._gate = directory / "go"
        self._pages = directory / "pages"
        self._executor = executor
        self._database_url = database_url
        self.supervisor = self.new_supervisor()

    def new_supervisor(self) -> Supervisor:
        return self._shop.supervisor(
            self._database_url,
            workers=1,
            executor=self._executor,
            environ={"EXECUTOR_COMMAND": TASK_PROGRAM},
        )

    def start_run(self, *, fails: bool = False, **columns: Any) -> int:
        """A run whose task has started, and waits for `let_go`."""
        started = self.starts
        run_id = self.enqueue(str(self._gate), fails, **columns)
        wait_until(lambda: self.starts > started, 10, "the task to start")
        return run_id

    def let_go(self) -> None:
        self._gate.touch()

    def other_runs_go_on(self) -> None:
        for run_id in [self.enqueue("/", False) for _ in range(3)]:
            wait_for_status(self.connection, run_id, "SUCCESSFUL")

    @property
    def starts(self) -> int:
        return self._pages.read_text().count("start") if self._pages.exists() else 0

    def enqueue(self, wait_for: str = "/", fails: bool = False, **columns: Any) -> int:
        if self._executor != "command":
            return self._shop.enqueue(self.connection, "gated", str(self._pages), wait_for, fails, **columns)
        payload: dict[str, Any] = {"wait_for": wait_for, "diary": str(self._pages)}
        return add_run(self.connection, payload | ({"exit": 1} if fails else {}), **columns)

    def stop(self) -> float:
        """How long it took."""
        began = time.monotonic()
        assert self.supervisor.stop() == 0
        return time.monotonic() - began


@pytest.fixture
def host(database_url: str, connection: Connection, tmp_path: Path, request: pytest.FixtureRequest) -> Host:
    return Host(database_url, connection, tmp_path, getattr(request, "param", "inline"))


each_executor = pytest.mark.parametrize("host", EXECUTORS, indirect=True)


@each_executor
@pytest.mark.parametrize(
    ("what", "code", "fails"),
    [
        (SUCCESS_WITH_A_RESULT, "P0001", False),
        (SUCCESS_WITH_A_RESULT, "23514", False),
        (SUCCESS_WITH_A_RESULT, "55P03", False),
        (RESULT_OR_ERRORS, "P0001", False),
        (RESULT_OR_ERRORS, "P0001", True),
        (RESULT_OR_ERRORS, "40001", True),
    ],
)
def test_48_a_run_whose_end_is_refused_each_time_gets_a_smaller_one_and_its_worker_goes_on(
    connection: Connection, host: Host, what: str, code: str, fails: bool
) -> None:
    refuse(connection, what=what, code=code)
    with host.supervisor as supervisor:
        worker = supervisor.worker_pids()
        run_id = host.start_run(fails=fails, max_attempts=1)
        doom(connection, run_id)
        host.let_go()
        host.other_runs_go_on()
        row = wait_for_status(connection, run_id, "FAILED", timeout_s=ENDED_WITHIN_S)
        assert (row["attempts"], row["result"], row["leased_by"]) == (1, None, None)
        if what == SUCCESS_WITH_A_RESULT:
            assert "not this run" in row["errors"][-1]["message"]
        assert supervisor.worker_pids() == worker
        assert host.stop() < DRAINED_WITHIN_S


@each_executor
@pytest.mark.parametrize("code", ["P0001", "55P03", "23514"])
def test_48_a_run_that_cannot_be_written_does_not_stop_work_or_shutdown(
    connection: Connection, host: Host, code: str
) -> None:
    refuse(connection, what=ANY_CHANGE, code=code)
    with host.supervisor as supervisor:
        worker = supervisor.worker_pids()
        run_id = host.start_run(max_attempts=1)
        doom(connection, run_id)
        host.let_go()
        host.other_runs_go_on()
        supervisor.wait_for_log("cannot be ended: the database refuses", timeout_s=ENDED_WITHIN_S)
        host.other_runs_go_on()
        assert run_row(connection, run_id)["status"] == "RUNNING"
        assert supervisor.worker_pids() == worker
        assert host.stop() < DRAINED_WITHIN_S
        assert supervisor.log().count("cannot be ended") == 1
        assert supervisor.log().count("is refused, and others are not") == 1
    # Once it can be written, it ends, and is not run again: it had started.
    relent(connection)
    starts = host.starts
    connection.execute("update task_runs set lease_expires_at = now() where id = %s", [run_id])
    connection.execute("update reproq_workers set lease_expires_at = now()")
    with host.new_supervisor():
        wait_for_status(connection, run_id, "FAILED")
        assert host.starts == starts


def test_48_unrecorded_ends_are_recorded_unchanged_when_the_trigger_is_dropped(
    connection: Connection, host: Host
) -> None:
    refuse(connection, what=ANY_END)
    with host.supervisor:
        run_id = host.start_run(max_attempts=1)
        doom(connection, run_id)
        host.let_go()
        host.other_runs_go_on()
        relent(connection)
        row = wait_for_status(connection, run_id, "SUCCESSFUL")
        assert row["result"] == "a result"


@each_executor
def test_48_a_cancel_ends_a_run_whose_end_is_refused(connection: Connection, host: Host) -> None:
    refuse(connection, what=f"{ANY_END} and new.status <> 'CANCELLED'", code="53100")
    with host.supervisor:
        run_id = host.start_run()
        doom(connection, run_id)
        host.let_go()
        host.other_runs_go_on()
        assert run_row(connection, run_id)["status"] == "RUNNING"
        cancel(connection, run_id)
        wait_for_status(connection, run_id, "CANCELLED", timeout_s=5)


def test_48_a_worker_waits_for_a_locked_row_and_its_result_is_kept(
    database_url: str, connection: Connection, host: Host
) -> None:
    with host.supervisor as supervisor, psycopg.connect(database_url) as other:
        worker = supervisor.worker_pids()
        run_id = host.start_run(max_attempts=1)
        other.execute("select from task_runs where id = %s for update", [run_id])
        host.let_go()
        locked_until = time.monotonic() + 12
        while time.monotonic() < locked_until:
            host.other_runs_go_on()
        other.rollback()
        row = wait_for_status(connection, run_id, "SUCCESSFUL")
        assert (row["result"], row["attempts"]) == ("a result", 1)
        assert supervisor.worker_pids() == worker


def test_48_a_refused_run_does_not_affect_the_rest_of_its_batch(connection: Connection, host: Host) -> None:
    refuse(connection, what=RESULT_OR_ERRORS)
    with host.supervisor as supervisor:
        gate = host.start_run(priority=1)
        runs = [host.enqueue() for _ in range(200)]
        doom(connection, *runs[50:53])
        host.let_go()
        for run_id in (gate, *runs[:50], *runs[53:]):
            assert wait_for_status(connection, run_id, "SUCCESSFUL")["attempts"] == 1
        for run_id in runs[50:53]:
            wait_for_status(connection, run_id, "FAILED", timeout_s=ENDED_WITHIN_S)
        assert "came too late" not in supervisor.log()


def test_48_more_such_runs_than_a_worker_may_carry_do_not_stop_the_host(
    connection: Connection, host: Host
) -> None:
    refuse(connection, what=ANY_END)
    with host.supervisor as supervisor:
        gate = host.start_run(priority=1)
        doomed = [host.enqueue(max_attempts=1) for _ in range(12)]
        doom(connection, *doomed)
        host.let_go()
        wait_for_status(connection, gate, "SUCCESSFUL")
        wait_until(lambda: host.starts == 13, 60, "all of them to have run")
        host.other_runs_go_on()
        assert host.stop() < DRAINED_WITHIN_S
        assert "came too late" not in supervisor.log()
    for run_id in doomed:
        assert run_row(connection, run_id)["status"] == "RUNNING"


@each_executor
def test_48_an_end_that_breaks_the_connection_each_time_is_replaced_by_a_smaller_one(
    connection: Connection, host: Host
) -> None:
    refuse(
        connection,
        what=SUCCESS_WITH_A_RESULT,
        raises="perform pg_terminate_backend(pg_backend_pid())",
    )
    with host.supervisor as supervisor:
        worker = supervisor.worker_pids()
        run_id = host.start_run(max_attempts=1)
        doom(connection, run_id)
        host.let_go()
        host.other_runs_go_on()
        wait_for_status(connection, run_id, "FAILED", timeout_s=ENDED_WITHIN_S)
        host.other_runs_go_on()
        assert supervisor.worker_pids() == worker


def test_48_an_end_that_takes_too_long_each_time_is_replaced_by_a_smaller_one(
    connection: Connection, host: Host
) -> None:
    refuse(connection, what=SUCCESS_WITH_A_RESULT, raises="perform pg_sleep(60)")
    with host.supervisor as supervisor:
        worker = supervisor.worker_pids()
        run_id = host.start_run(max_attempts=1)
        doom(connection, run_id)
        host.let_go()
        wait_for_status(connection, run_id, "FAILED", timeout_s=60)
        host.other_runs_go_on()
        assert supervisor.worker_pids() == worker


def test_48_after_a_dead_worker_a_run_with_an_unrecorded_end_counts_as_started(
    connection: Connection, host: Host
) -> None:
    """It must not run twice, although the worker executed another run when it died."""
    refuse(connection, what=ANY_END)
    with host.supervisor as supervisor:
        run_id = host.start_run(max_attempts=1)
        doom(connection, run_id)
        host.let_go()
        supervisor.wait_for_log("is refused, and others are not")
        host.other_runs_go_on()
        relent(connection)
        os.kill(supervisor.worker_pids()[0], signal.SIGKILL)
        row = wait_for_status(connection, run_id, "FAILED", "SUCCESSFUL")
        assert row["claims"] == row["attempts"] == 1
        assert host.starts == 1 + 3


def test_48_a_dead_workers_run_that_cannot_be_reset_blocks_no_slot_and_no_other_run(
    connection: Connection, host: Host
) -> None:
    refuse(connection, what=ANY_CHANGE)
    with host.supervisor as supervisor:
        (worker,) = supervisor.worker_pids()
        run_id = host.start_run()
        doom(connection, run_id)
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: supervisor.booted_worker_pids() not in ([], [worker]), 10, "another worker")
        host.other_runs_go_on()
        # And the next one that dies is reset as ever.
        (worker,) = supervisor.booted_worker_pids()
        second = host.start_run()
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: run_row(connection, second)["claims"] == 2, 10, "its run to be claimed again")
        host.let_go()
        wait_for_status(connection, second, "SUCCESSFUL")
        assert run_row(connection, run_id)["status"] == "RUNNING"
        relent(connection)
        assert wait_for_status(connection, run_id, "SUCCESSFUL")["attempts"] == 2


def test_48_after_a_dead_master_a_run_with_an_unrecorded_end_counts_as_started(
    connection: Connection, host: Host
) -> None:
    """The worker executed another run. The steward resets the runs of the dead workers."""
    shut_down = "new.status = 'FAILED' and new.errors::text like '%master died%'"
    refuse(connection, what=f"{ANY_END} and not ({shut_down})")
    with host.supervisor as supervisor:
        run_id = host.start_run(max_attempts=1)
        doom(connection, run_id)
        host.let_go()
        supervisor.wait_for_log("is refused, and others are not")
        host.other_runs_go_on()
        os.kill(supervisor.pid, signal.SIGKILL)
        row = wait_for_status(connection, run_id, "FAILED", "PENDING", "SUCCESSFUL")
        assert (row["status"], row["attempts"]) == ("FAILED", 1)
