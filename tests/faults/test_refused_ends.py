"""Row 48 of the fault list: the server refuses what is to be written about one run, and takes all else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.refusals import (
    RESULT_OR_ERRORS,
    SUCCESS_WITH_A_RESULT,
    doom,
    refuse,
)
from tests.shop import Shop
from tests.supervisor import TASK_PROGRAM, Connection, add_run, wait_for_status
from tests.waiting import wait_until

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
    """One worker, and a run of it that is under way."""

    def __init__(self, database_url: str, connection: Connection, directory: Path, executor: str) -> None:
        self.connection = connection
        self._shop = Shop(directory, GATED)
        self._gate = directory / "go"
        self._pages = directory / "pages"
        self._executor = executor
        self.supervisor = self._shop.supervisor(
            database_url,
            workers=1,
            executor=executor,
            environ={"EXECUTOR_COMMAND": TASK_PROGRAM, "REPROQ_MAX_ATTEMPTS": "3"},
        )

    def start_run(self, *, fails: bool = False, **columns: Any) -> int:
        """A run whose task has started, and waits for `let_go`."""
        started = self._starts()
        run_id = self._enqueue(str(self._gate), fails, **columns)
        wait_until(lambda: self._starts() > started, 10, "the task to start")
        return run_id

    def let_go(self) -> None:
        self._gate.touch()

    def other_runs_go_on(self) -> None:
        for run_id in [self._enqueue("/", False) for _ in range(3)]:
            wait_for_status(self.connection, run_id, "SUCCESSFUL")

    def _starts(self) -> int:
        if self._executor == "command":
            return self._pages.read_text().count("start") if self._pages.exists() else 0
        return self._pages.read_text().count("start") if self._pages.exists() else 0

    def _enqueue(self, wait_for: str, fails: bool, **columns: Any) -> int:
        if self._executor == "command":
            payload: dict[str, Any] = {"wait_for": wait_for, "diary": str(self._pages)}
            if fails:
                payload["exit"] = 1
            return add_run(self.connection, payload, **columns)
        return self._shop.enqueue(self.connection, "gated", str(self._pages), wait_for, fails, **columns)


@pytest.mark.parametrize("executor", EXECUTORS)
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
    database_url: str,
    connection: Connection,
    tmp_path: Path,
    executor: str,
    what: str,
    code: str,
    fails: bool,
) -> None:
    refuse(connection, what=what, code=code)
    host = Host(database_url, connection, tmp_path, executor)
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
        assert supervisor.stop() == 0
