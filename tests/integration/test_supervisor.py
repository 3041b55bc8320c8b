"""The master, its steward and its workers together, as a user starts them."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import psutil
import pytest

from tests.support.supervisor.supervisor import (
    Connection,
    Supervisor,
    add_run,
    diary,
    run_row,
    wait_for_start,
    wait_for_status,
)
from tests.support.waiting import wait_until


@pytest.fixture
def supervisor(database_url: str, tmp_path: Path) -> Supervisor:
    return Supervisor(database_url, tmp_path)


def test_a_run_is_executed_and_its_result_kept(supervisor: Supervisor, connection: Connection) -> None:
    with supervisor:
        run = wait_for_status(connection, add_run(connection, {"value": "hello"}), "SUCCESSFUL")
    assert run["result"] == {"echo": "hello", "attempt": 1}
    assert run["attempts"] == run["claims"] == len(run["worker_ids"]) == 1
    assert run["errors"] == []
    assert run["enqueued_at"] <= run["started_at"] <= run["finished_at"]
    assert run["leased_by"] is None


def test_a_failed_attempt_is_retried_and_recorded_in_errors(
    supervisor: Supervisor, connection: Connection
) -> None:
    with supervisor:
        run_id = add_run(connection, {"exit": 3, "fail_attempts": 1, "stderr": "no\nluck today"})
        run = wait_for_status(connection, run_id, "SUCCESSFUL")
    assert run["attempts"] == 2
    assert [(entry["kind"], entry["message"], entry["attempt"]) for entry in run["errors"]] == [
        ("failed", "luck today", 1)
    ]
    assert run["errors"][0]["worker"] == run["worker_ids"][0]


def test_after_the_last_attempt_a_run_is_failed(supervisor: Supervisor, connection: Connection) -> None:
    with supervisor:
        run = wait_for_status(connection, add_run(connection, {"exit": 1}, max_attempts=2), "FAILED")
    assert run["attempts"] == len(run["errors"]) == 2


def test_a_failure_may_ask_not_to_be_retried(supervisor: Supervisor, connection: Connection) -> None:
    with supervisor:
        run_id = add_run(connection, {"exit": 1, "stderr": '{"message": "never", "retry": false}'})
        run = wait_for_status(connection, run_id, "FAILED")
    assert run["attempts"] == 1
    assert run["errors"][0]["message"] == "never"


def test_a_timeout_ends_the_task_and_is_an_attempt(supervisor: Supervisor, connection: Connection) -> None:
    with supervisor:
        run_id = add_run(connection, {"sleep": 60}, max_attempts=1, timeout_seconds=0.3)
        run = wait_for_status(connection, run_id, "FAILED")
    assert run["errors"][0]["kind"] == "timeout"


def test_higher_priority_goes_first_then_the_earlier_due_time(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    pages = tmp_path / "diary"
    low = add_run(connection, {"diary": str(pages)}, priority=-5)
    first = add_run(connection, {"diary": str(pages)})
    second = add_run(connection, {"diary": str(pages)})
    high = add_run(connection, {"diary": str(pages)}, priority=7)
    with Supervisor(database_url, tmp_path, workers=1):
        wait_for_status(connection, low, "SUCCESSFUL")
    assert [run_id for what, run_id, *_ in diary(pages) if what == "start"] == [high, first, second, low]


def test_only_its_own_queues_are_served(database_url: str, connection: Connection, tmp_path: Path) -> None:
    mine, other = add_run(connection, {}, queue_name="mail"), add_run(connection, {}, queue_name="video")
    with Supervisor(database_url, tmp_path, environ={"QUEUE_NAME": "mail,news"}):
        wait_for_status(connection, mine, "SUCCESSFUL")
    assert run_row(connection, other)["status"] == "PENDING"


def test_term_lets_the_running_task_finish(
    supervisor: Supervisor, connection: Connection, tmp_path: Path
) -> None:
    with supervisor:
        run_id = add_run(connection, {"sleep": 1, "diary": str(tmp_path / "diary")})
        wait_for_start(tmp_path / "diary")
        later = add_run(connection, {}, queue_name="default", run_after="2100-01-01")
        assert supervisor.stop() == 0
        assert supervisor.family() == []
    assert run_row(connection, run_id)["status"] == "SUCCESSFUL"
    assert run_row(connection, later)["attempts"] == 0
    assert connection.execute("select count(*) from reproq_workers").fetchone() == (0,)


def test_after_term_no_run_is_claimed(database_url: str, connection: Connection, tmp_path: Path) -> None:
    with Supervisor(database_url, tmp_path, workers=1) as supervisor:
        running = add_run(connection, {"sleep": 2, "diary": str(tmp_path / "diary")})
        wait_for_start(tmp_path / "diary")
        waiting = add_run(connection, {})
        assert supervisor.stop() == 0
    assert run_row(connection, running)["status"] == "SUCCESSFUL"
    assert run_row(connection, waiting)["status"] == "PENDING"
    assert run_row(connection, waiting)["claims"] == 0


def test_a_drain_that_takes_too_long_hands_back_and_refunds(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    with Supervisor(database_url, tmp_path, environ={"REPROQ_SHUTDOWN_TIMEOUT": "300ms"}) as supervisor:
        pages = tmp_path / "diary"
        run_id = add_run(connection, {"sleep": 60, "diary": str(pages)})
        once = add_run(connection, {"sleep": 60, "diary": str(pages)}, max_attempts=1)
        # Not only claimed: what has not started is handed back, whatever its max_attempts.
        wait_until(lambda: len(list(diary(pages))) == 2, 10, "both tasks to start")
        assert supervisor.stop() == 0
    run = run_row(connection, run_id)
    assert (run["status"], run["attempts"], run["claims"], run["worker_ids"], run["errors"]) == (
        "PENDING",
        0,
        1,
        [],
        [],
    )
    failed = run_row(connection, once)
    assert (failed["status"], failed["attempts"]) == ("FAILED", 1)
    assert failed["errors"][0]["kind"] == "shutdown"


def test_quit_stops_at_once_and_hands_back(supervisor: Supervisor, connection: Connection) -> None:
    with supervisor:
        run_id = add_run(connection, {"sleep": 60, "ignore_term": True})
        wait_for_status(connection, run_id, "RUNNING")
        assert supervisor.stop(signal.SIGQUIT) == 0
    run = run_row(connection, run_id)
    assert (run["status"], run["attempts"]) == ("PENDING", 0)


def test_a_second_interrupt_does_not_wait_for_the_task(
    supervisor: Supervisor, connection: Connection
) -> None:
    with supervisor:
        run_id = add_run(connection, {"sleep": 60})
        wait_for_status(connection, run_id, "RUNNING")
        supervisor.send(signal.SIGINT)
        supervisor.wait_for_log("draining")
        assert supervisor.stop(signal.SIGINT) == 0
    assert run_row(connection, run_id)["status"] == "PENDING"


def test_ttin_and_ttou_change_the_number_of_workers(supervisor: Supervisor) -> None:
    with supervisor:
        supervisor.send(signal.SIGTTIN)
        wait_until(lambda: len(supervisor.worker_pids()) == 3, 10, "a third worker")
        supervisor.send(signal.SIGTTOU)
        wait_until(lambda: len(supervisor.worker_pids()) == 2, 10, "two workers")
        supervisor.send(signal.SIGTTOU)
        wait_until(lambda: len(supervisor.worker_pids()) == 1, 10, "one worker")
        supervisor.send(signal.SIGTTOU)
        supervisor.wait_for_log("stays at 1")
        assert supervisor.stop() == 0


def test_usr2_pauses_claims_until_the_next_usr2(supervisor: Supervisor, connection: Connection) -> None:
    with supervisor:
        wait_for_status(connection, add_run(connection, {}), "SUCCESSFUL")
        supervisor.send(signal.SIGUSR2)
        supervisor.wait_for_log("quiet:")
        run_id = add_run(connection, {})
        supervisor.send(signal.SIGUSR1)
        supervisor.wait_for_log("running, quiet")
        assert run_row(connection, run_id)["status"] == "PENDING"
        supervisor.send(signal.SIGUSR2)
        wait_for_status(connection, run_id, "SUCCESSFUL")


def test_usr1_logs_the_state_of_each_process(supervisor: Supervisor, connection: Connection) -> None:
    with supervisor:
        run_id = add_run(connection, {"sleep": 60})
        # The row is RUNNING a moment before its worker shows that it has started it.
        wait_for_status(connection, run_id, "RUNNING")
        wait_until(lambda: "busy" in "".join(_own_titles(supervisor)), 10, "a worker that says so")
        supervisor.send(signal.SIGUSR1)
        supervisor.wait_for_log(f"run {run_id} attempt 1 for ")
        supervisor.wait_for_log("steward pid ")


def test_process_titles_show_the_role_and_never_the_arguments(
    supervisor: Supervisor, connection: Connection
) -> None:
    with supervisor:
        run_id = add_run(connection, {"sleep": 60})
        wait_for_status(connection, run_id, "RUNNING")
        expected = [
            "reproq-prefork: master",
            "reproq-prefork: steward",
            f"reproq-prefork: worker [busy {run_id}]",
            "reproq-prefork: worker [idle]",
        ]
        # Until it has become another program, the task's process still has its worker's title.
        wait_until(lambda: _own_titles(supervisor) == expected, 10, "titles that say who does what")


def _own_titles(supervisor: Supervisor) -> list[str]:
    titles = [title for title in supervisor.titles() if title.startswith("reproq-prefork")]
    return sorted(re.sub(r"worker \d+", "worker", title) for title in titles)


def test_max_tasks_replaces_a_worker_without_an_attempt_lost(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    with Supervisor(database_url, tmp_path, workers=1, environ={"REPROQ_MAX_TASKS": "3"}):
        runs = [add_run(connection, {}) for _ in range(8)]
        rows = [wait_for_status(connection, run_id, "SUCCESSFUL") for run_id in runs]
    assert {row["attempts"] for row in rows} == {1}
    assert len({row["worker_ids"][0] for row in rows}) >= 3


def test_drain_ends_once_nothing_is_left_to_do(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    runs = [add_run(connection, {"exit": 1, "fail_attempts": 1}) for _ in range(4)]
    tomorrow = add_run(connection, {}, run_after="2100-01-01")
    supervisor = Supervisor(
        database_url, tmp_path, environ={"REPROQ_DRAIN": "true", "POLL_INTERVAL": "100ms"}
    )
    with supervisor:
        assert supervisor.wait() == 0
    assert [run_row(connection, run_id)["status"] for run_id in runs] == ["SUCCESSFUL"] * 4
    assert run_row(connection, tomorrow)["status"] == "PENDING"


def test_a_live_pid_file_is_refused_and_a_stale_one_taken_over(database_url: str, tmp_path: Path) -> None:
    pid_file = tmp_path / "reproq.pid"
    environ = {"REPROQ_PID_FILE": str(pid_file)}
    with Supervisor(database_url, tmp_path, environ=environ) as first:
        assert int(pid_file.read_text()) == first.pid
        with Supervisor(database_url, tmp_path, environ=environ).starting() as second:
            assert second.wait() == 8
            assert f"process {first.pid}" in second.log()
        first.send(signal.SIGKILL)
        first.wait()
        wait_until(lambda: not psutil.pid_exists(first.pid), 5, "the master to be gone")
        with Supervisor(database_url, tmp_path, environ=environ) as third:
            assert int(pid_file.read_text()) == third.pid
            assert third.stop() == 0
    assert not pid_file.exists()
