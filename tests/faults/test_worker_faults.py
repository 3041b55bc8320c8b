"""Rows 1 to 3, 11, 12 and 27 of the fault list: workers and task processes that die or hang."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import psutil
import pytest

from reproq_prefork.model.run import omitted_entries
from tests.support.supervisor.supervisor import (
    Connection,
    Supervisor,
    add_run,
    diary,
    is_running,
    run_row,
    wait_for_start,
    wait_for_status,
)
from tests.support.waiting import wait_until

RECOVERY_S = (
    0.25  # from the death of a worker to its task being PENDING; the machine is shared, so a test allows
)
GENEROUS = 8  # this many times as long

KEPT_ATTEMPTS = 40  # the first 20 and the last 20


def test_01_an_idle_worker_that_dies_is_replaced(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    with Supervisor(database_url, tmp_path, workers=2) as supervisor:
        before = supervisor.worker_pids()
        os.kill(before[0], signal.SIGKILL)
        wait_until(
            lambda: len(supervisor.worker_pids()) == 2 and before[0] not in supervisor.worker_pids(),
            10,
            "another worker in its place",
        )
        wait_for_status(connection, add_run(connection, {}), "SUCCESSFUL")
        wait_until(lambda: _registered(connection) == 2, 10, "the dead worker to be forgotten")


def test_02_the_task_of_a_dead_worker_is_pending_again_at_once_and_its_processes_are_dead_first(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    with Supervisor(database_url, tmp_path, workers=1) as supervisor:
        payload = {
            "sleep": 60,
            "children": [["sleep", "61"]],
            "children_pids": str(pids),
            "diary": str(tmp_path / "diary"),
        }
        run_id = add_run(connection, payload)
        wait_until(lambda: pids.exists() and pids.read_text().strip(), 10, "the task to have a child")
        task = [pid for what, _, _, pid, _ in diary(tmp_path / "diary")] + [int(pids.read_text())]
        processes = [psutil.Process(pid) for pid in task]
        worker = supervisor.worker_pids()[0]
        killed_at = time.monotonic()
        os.kill(worker, signal.SIGKILL)

        def reset_while_its_processes_live() -> bool:
            row = run_row(connection, run_id)
            free = row["status"] == "PENDING" or row["claims"] > 1
            assert not (free and any(map(is_running, processes))), "claimable while the task still runs"
            return bool(free)

        wait_until(reset_while_its_processes_live, RECOVERY_S * GENEROUS, "the run to be PENDING again")
        assert time.monotonic() - killed_at < RECOVERY_S * GENEROUS
        row = wait_for_status(connection, run_id, "RUNNING")
        assert row["attempts"] == 2
        assert row["errors"][0]["kind"] == "worker_lost"
        assert "killed by signal 9" in row["errors"][0]["message"]


def test_02_workers_killed_200_times_leave_nothing_running_and_lose_nothing(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    dice = random.Random(seed)
    with Supervisor(database_url, tmp_path, workers=3, environ={"REPROQ_LOG_LEVEL": "info"}) as supervisor:
        runs = [add_run(connection, {"sleep": 0.005}, max_attempts=1000) for _ in range(300)]
        kills = 0
        while kills < 200:
            pids = wait_until(supervisor.booted_worker_pids, 10, "a worker to kill")
            with contextlib.suppress(ProcessLookupError):
                os.kill(dice.choice(pids), signal.SIGKILL)
                kills += 1
            time.sleep(dice.uniform(0, 0.05))  # a random moment of the next worker's life
        for run_id in runs:
            row = wait_for_status(connection, run_id, "SUCCESSFUL", timeout_s=40)
            kept = min(row["attempts"], KEPT_ATTEMPTS)
            assert len(row["worker_ids"]) == kept
            assert sum(omitted_entries(entry) or 1 for entry in row["errors"]) == row["attempts"] - 1
        assert supervisor.stop() == 0
    assert connection.execute("select count(*) from task_runs where status <> 'SUCCESSFUL'").fetchone() == (
        0,
    )


@pytest.mark.parametrize(
    ("payload", "kind", "message"),
    [
        ({"kill_self": signal.SIGKILL}, "killed", "killed by signal 9"),
        ({"kill_self": signal.SIGSEGV}, "killed", "killed by signal 11"),
        ({"exit": 7}, "failed", "exit status 7"),
    ],
)
def test_03_a_task_process_that_dies_is_an_attempt_and_the_worker_lives(
    database_url: str,
    connection: Connection,
    tmp_path: Path,
    payload: dict[str, int],
    kind: str,
    message: str,
) -> None:
    with Supervisor(database_url, tmp_path, workers=1) as supervisor:
        workers = supervisor.worker_pids()
        row = wait_for_status(connection, add_run(connection, payload, max_attempts=1), "FAILED")
        assert (row["errors"][0]["kind"], row["errors"][0]["message"]) == (kind, message)
        wait_for_status(connection, add_run(connection, {}), "SUCCESSFUL")
        assert supervisor.worker_pids() == workers


def test_11_a_task_that_ignores_term_and_its_children_in_other_sessions_are_gone_after_the_timeout(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    with Supervisor(database_url, tmp_path, workers=1):
        run_id = add_run(
            connection,
            {
                "ignore_term": True,
                "sleep": 60,
                "children": [["sleep", "61"], ["sh", "-c", "trap '' TERM; (sleep 62 & sleep 63)"]],
                "children_pids": str(pids),
                "diary": str(tmp_path / "diary"),
            },
            max_attempts=1,
            timeout_seconds=0.5,
        )
        wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 2, 10, "both children")
        family = [psutil.Process(int(pid)) for pid in pids.read_text().split()]
        family += [child for process in list(family) for child in process.children(recursive=True)]
        row = wait_for_status(connection, run_id, "FAILED")
        assert row["errors"][0]["kind"] == "timeout"
        assert not any(map(is_running, family))
        assert not [
            process
            for process in psutil.process_iter(["cmdline"])
            if process.info["cmdline"] in (["sleep", "62"], ["sleep", "63"])
        ]


def test_12_a_worker_that_does_not_end_its_task_at_the_deadline_is_killed_and_the_attempt_charged(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    with Supervisor(database_url, tmp_path, workers=1) as supervisor:
        payload = {"sleep": 60, "diary": str(tmp_path / "diary")}
        run_id = add_run(connection, payload, max_attempts=1, timeout_seconds=2)
        wait_for_start(tmp_path / "diary")
        worker = supervisor.worker_pids()[0]
        os.kill(worker, signal.SIGSTOP)  # as one that hangs in C with the interpreter's lock held
        row = wait_for_status(connection, run_id, "FAILED")
        assert row["errors"][0]["kind"] == "timeout"
        assert row["attempts"] == 1
        wait_until(lambda: worker not in supervisor.worker_pids(), 10, "the worker to be replaced")


def test_27_a_task_that_kills_its_worker_each_time_ends_in_failed(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    with Supervisor(database_url, tmp_path, workers=2) as supervisor:
        run_id = add_run(connection, {"kill_parent": signal.SIGKILL}, max_attempts=3)
        row = wait_for_status(connection, run_id, "FAILED")
        assert row["attempts"] == 3
        assert [entry["kind"] for entry in row["errors"]] == ["worker_lost"] * 3
        assert len(set(row["worker_ids"])) == 3
        wait_for_status(connection, add_run(connection, {}), "SUCCESSFUL")
        assert supervisor.stop() == 0


def test_27_a_run_that_must_not_run_twice_fails_with_its_worker(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    with Supervisor(database_url, tmp_path, workers=1):
        row = wait_for_status(
            connection, add_run(connection, {"kill_parent": signal.SIGKILL}, max_attempts=1), "FAILED"
        )
        assert row["errors"][0]["kind"] == "worker_lost"


def _registered(connection: Connection) -> int:
    row = connection.execute("select count(*) from reproq_workers").fetchone()
    assert row is not None
    return int(row[0])
