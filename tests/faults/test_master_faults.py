"""Rows 4, 6 to 10 and 15 of the fault list: the master, the steward, the whole tree, and reloads."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.support.supervisor.supervisor import (
    SHORT_LEASE,
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

ORPHANS_BOUND_S = 5.0


def test_04_when_the_master_dies_all_exit_and_their_runs_are_pending_again(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    with Supervisor(database_url, tmp_path, workers=2) as supervisor:
        run_id = add_run(connection, {"sleep": 60, "ignore_term": True, "children": [["sleep", "61"]]})
        wait_for_status(connection, run_id, "RUNNING")
        wait_until(lambda: len(supervisor.family()) >= 6, 10, "the task and its child")
        family = supervisor.family()
        supervisor.send(signal.SIGKILL)
        wait_until(lambda: not any(map(is_running, family)), ORPHANS_BOUND_S, "all of them to be gone")
        row = wait_for_status(connection, run_id, "PENDING", timeout_s=ORPHANS_BOUND_S)
        assert (row["attempts"], row["claims"]) == (0, 1)
        assert connection.execute("select count(*) from reproq_workers").fetchone() == (0,)
        wait_until(lambda: _backends(connection) == 0, ORPHANS_BOUND_S, "the server to see them gone")


def test_04_a_worker_that_cannot_stop_is_killed_and_reset_by_the_steward(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    with Supervisor(database_url, tmp_path, workers=1) as supervisor:
        run_id = add_run(
            connection, {"sleep": 60, "children": [["sleep", "61"]], "children_pids": str(tmp_path / "pids")}
        )
        wait_until(lambda: (tmp_path / "pids").exists(), 10, "the task to have a child")
        family = supervisor.family()
        os.kill(supervisor.worker_pids()[0], signal.SIGSTOP)
        supervisor.send(signal.SIGKILL)
        wait_until(lambda: not any(map(is_running, family)), 2 * ORPHANS_BOUND_S, "all of them to be gone")
        wait_for_status(connection, run_id, "PENDING", timeout_s=ORPHANS_BOUND_S)


def test_06_after_all_died_at_once_a_new_master_takes_over_at_its_start(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    environ = {"REPROQ_PID_FILE": str(tmp_path / "reproq.pid")}
    with Supervisor(database_url, tmp_path, workers=2, environ=environ) as supervisor:
        run_id = add_run(connection, {"wait_for": str(tmp_path / "go")})
        wait_for_status(connection, run_id, "RUNNING")
        family = supervisor.family()
        for (
            process
        ) in family:  # the steward and the workers first, so that none of them acts on the others' death
            process.suspend()
        for process in reversed(family):
            process.kill()
        supervisor.wait()
        wait_until(lambda: not any(map(is_running, family)), 10, "all of them to be gone")
        assert run_row(connection, run_id)["status"] == "RUNNING"
        (tmp_path / "go").touch()
        with Supervisor(database_url, tmp_path, workers=1, environ=environ):
            row = wait_for_status(
                connection, run_id, "SUCCESSFUL", timeout_s=10
            )  # long before its lease of 30 s
        assert row["attempts"] == 2
        assert row["errors"][0]["kind"] == "worker_lost"


def test_07_a_tree_that_was_stopped_past_its_lease_changes_nothing_when_it_wakes(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    pages = tmp_path / "diary"
    with Supervisor(database_url, tmp_path, workers=1, environ=SHORT_LEASE) as first:
        run_id = add_run(connection, {"wait_for": str(tmp_path / "go"), "diary": str(pages)})
        wait_for_status(connection, run_id, "RUNNING")
        wait_for_start(pages)
        stopped = first.family()
        for process in stopped:
            process.suspend()
        with Supervisor(database_url, tmp_path, workers=1, environ=SHORT_LEASE) as second:
            wait_until(lambda: run_row(connection, run_id)["claims"] == 2, 20, "the other host to claim it")
            wait_until(lambda: len(list(diary(pages))) == 2, 10, "the second attempt to start")
            for process in stopped:
                with contextlib.suppress(psutil.NoSuchProcess):  # the worker may have killed its task by now
                    process.resume()
            first.wait_for_log("lease")
            task = next(pid for what, _, claim, pid, _ in diary(pages) if claim == 1)
            wait_until(lambda: not _runs(task), 10, "the first attempt to be killed")
            row = run_row(connection, run_id)
            assert (row["status"], row["claims"], row["attempts"]) == ("RUNNING", 2, 2)
            (tmp_path / "go").touch()
            row = wait_for_status(connection, run_id, "SUCCESSFUL")
            assert row["result"]["attempt"] == 2
            assert row["errors"][0]["kind"] == "lease_expired"
            assert second.stop() == 0
        # The first has replaced its worker, and works on.
        wait_for_status(connection, add_run(connection, {}), "SUCCESSFUL")
    assert [what for what, *_ in diary(pages)].count("end") == 1


def test_07b_a_worker_that_is_stopped_alone_keeps_its_lease_and_no_second_copy_runs(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    pages = tmp_path / "diary"
    with Supervisor(database_url, tmp_path, workers=2, environ=SHORT_LEASE):
        run_id = add_run(connection, {"wait_for": str(tmp_path / "go"), "diary": str(pages)})
        wait_for_status(connection, run_id, "RUNNING")
        leased_by = run_row(connection, run_id)["leased_by"]
        pid = connection.execute("select pid from reproq_workers where id = %s", [leased_by]).fetchone()
        assert pid is not None
        os.kill(pid[0], signal.SIGSTOP)
        expires_at = run_row(connection, run_id)["lease_expires_at"]
        # Past the lease of the claim and the next sweep: only the renewals of the steward keep it.
        wait_until(
            lambda: (
                connection.execute("select now() > %s::timestamptz + interval '6 s'", [expires_at]).fetchone()
                == (True,)
            ),
            20,
            "the claim's own lease and a sweep to be past",
        )
        assert run_row(connection, run_id)["claims"] == 1
        os.kill(pid[0], signal.SIGCONT)
        (tmp_path / "go").touch()
        row = wait_for_status(connection, run_id, "SUCCESSFUL")
        assert row["attempts"] == 1
    assert [what for what, *_ in diary(pages)] == ["start", "end"]


def test_08_a_master_that_was_stopped_kills_nobody_when_it_wakes(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    with Supervisor(database_url, tmp_path, workers=2, environ=SHORT_LEASE) as supervisor:
        workers, steward = supervisor.worker_pids(), supervisor.steward_pid()
        supervisor.send(signal.SIGSTOP)
        runs = [add_run(connection, {"sleep": 0.1}) for _ in range(10)]
        for run_id in runs:
            assert wait_for_status(connection, run_id, "SUCCESSFUL")["attempts"] == 1
        started = time.monotonic()
        wait_until(lambda: time.monotonic() - started > 4, 10, "twice the lease to pass")
        supervisor.send(signal.SIGCONT)
        wait_for_status(connection, add_run(connection, {}), "SUCCESSFUL")
        supervisor.send(signal.SIGUSR1)
        supervisor.wait_for_log("state: running")
        assert supervisor.worker_pids() == workers
        assert supervisor.steward_pid() == steward


def test_09_a_steward_that_dies_is_replaced_and_the_leases_are_kept(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    with Supervisor(database_url, tmp_path, workers=2, environ=SHORT_LEASE) as supervisor:
        run_id = add_run(connection, {"sleep": 5})
        wait_for_status(connection, run_id, "RUNNING")
        steward = supervisor.steward_pid()
        os.kill(steward, signal.SIGKILL)
        supervisor.wait_for_log("the steward ended")
        row = wait_for_status(connection, run_id, "SUCCESSFUL")
        assert (row["attempts"], row["claims"]) == (1, 1)
        assert supervisor.steward_pid() != steward


def test_09_a_death_that_a_dead_steward_did_not_handle_is_passed_to_the_next(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    with Supervisor(database_url, tmp_path, workers=1) as supervisor:
        run_id = add_run(connection, {"sleep": 60})
        wait_for_status(connection, run_id, "RUNNING")
        steward = supervisor.steward_pid()
        os.kill(steward, signal.SIGSTOP)
        os.kill(supervisor.worker_pids()[0], signal.SIGKILL)
        supervisor.wait_for_log("ended: killed by signal 9")
        os.kill(steward, signal.SIGKILL)
        wait_until(lambda: run_row(connection, run_id)["claims"] == 2, 10, "the run to be claimed again")


def test_09_without_a_steward_a_worker_ends_its_task_before_its_lease_ends(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """The worker ends it itself. The master would kill it only after the lease has ended for others."""
    pages = tmp_path / "diary"
    with Supervisor(database_url, tmp_path, workers=1, environ={"REPROQ_LEASE": "6s"}) as supervisor:
        run_id = add_run(connection, {"sleep": 60, "diary": str(pages)})
        wait_for_status(connection, run_id, "RUNNING")
        os.kill(supervisor.steward_pid(), signal.SIGSTOP)
        wait_until(lambda: len(list(diary(pages))) >= 1, 10, "the task to start")
        task = next(diary(pages))[3]
        wait_until(lambda: not _runs(task), 8, "the task to be ended by its worker")
        assert connection.execute(
            "select lease_expires_at > clock_timestamp() from reproq_workers"
            " where id = (select leased_by from task_runs where id = %s)",
            [run_id],
        ).fetchone() == (True,)
        supervisor.wait_for_log(f"run {run_id} was stopped: the worker's lease had ended")
        assert "did not end its task" not in supervisor.log()


def test_10_a_burst_of_signals_ends_in_order_and_charges_nobody(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    environ = {"REPROQ_SHUTDOWN_TIMEOUT": "500ms"}
    with Supervisor(database_url, tmp_path, workers=2, environ=environ) as supervisor:
        runs = [add_run(connection, {"sleep": 60}) for _ in range(2)]
        for run_id in runs:
            wait_for_status(connection, run_id, "RUNNING")
        for signum in (
            signal.SIGHUP,
            signal.SIGTERM,
            signal.SIGHUP,
            signal.SIGCHLD,
            signal.SIGTTIN,
            signal.SIGTERM,
        ):
            supervisor.send(signum)
        assert supervisor.wait() == 0
    for run_id in runs:
        row = run_row(connection, run_id)
        assert (row["status"], row["attempts"], row["worker_ids"], row["errors"]) == ("PENDING", 0, [], [])


def test_10_term_while_idle_ends_at_once(database_url: str, tmp_path: Path) -> None:
    with Supervisor(database_url, tmp_path, workers=2) as supervisor:
        assert supervisor.stop() == 0


def test_15_a_reload_takes_new_settings_and_interrupts_no_task(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    (tmp_path / "reproq.toml").write_text('queue = "default"\n')
    with Supervisor(database_url, tmp_path, workers=2) as supervisor:
        old_workers = supervisor.worker_pids()
        running = add_run(connection, {"wait_for": str(tmp_path / "go")})
        wait_for_status(connection, running, "RUNNING")
        mail = add_run(connection, {}, queue_name="mail")
        (tmp_path / "reproq.toml").write_text('queue = ["default", "mail"]\n')
        supervisor.send(signal.SIGHUP)
        wait_for_status(connection, mail, "SUCCESSFUL")
        supervisor.wait_for_log("reloaded: 2 new workers")
        assert run_row(connection, running)["status"] == "RUNNING"
        (tmp_path / "go").touch()
        assert wait_for_status(connection, running, "SUCCESSFUL")["attempts"] == 1
        wait_until(
            lambda: not set(old_workers) & set(supervisor.worker_pids()), 10, "the old workers to leave"
        )
        wait_until(lambda: len(supervisor.worker_pids()) == 2, 10, "two workers")
        assert supervisor.stop() == 0


def test_15_a_reload_with_a_broken_config_changes_nothing_and_says_why(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    config = tmp_path / "reproq.toml"
    config.write_text('queue = "default"\n')
    with Supervisor(database_url, tmp_path, workers=2) as supervisor:
        workers = supervisor.worker_pids()
        config.write_text('lease = "soon"\n')
        supervisor.send(signal.SIGHUP)
        supervisor.wait_for_log("reload refused, nothing has changed")
        assert "soon" in supervisor.log()
        wait_for_status(connection, add_run(connection, {}), "SUCCESSFUL")
        assert supervisor.worker_pids() == workers
        config.write_text('queue = ["default", "mail"]\n')
        supervisor.send(signal.SIGHUP)
        supervisor.wait_for_log("reloaded: 2 new workers")
        wait_for_status(connection, add_run(connection, {}, queue_name="mail"), "SUCCESSFUL")


@pytest.mark.timeout(180)
def test_15_a_reload_leaves_nothing_of_its_settings_in_the_master(database_url: str, tmp_path: Path) -> None:
    mib = 1 << 20
    env_file = tmp_path / ".env"
    env_file.write_text("".join(f"LARGE_{number}={'x' * (mib // 10)}\n" for number in range(9)))
    env_file.chmod(0o600)
    with Supervisor(database_url, tmp_path, workers=1, environ={"REPROQ_ENV_FILE": ".env"}) as supervisor:

        def reload(times: int) -> None:
            supervisor.send(signal.SIGHUP)
            supervisor.wait_for_log("reloaded: ", times=times)
            wait_until(lambda: len(supervisor.steward_pids()) == 1, 20, "only the newest steward")

        def size() -> int:
            return int(psutil.Process(supervisor.pid).memory_info().rss)

        for times in range(1, 6):
            reload(times)
        before = size()
        for times in range(6, 21):
            reload(times)
        assert size() - before < 4 * mib, "of each is nearly one"


def test_15_hups_that_come_during_a_reload_are_remembered(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    with Supervisor(database_url, tmp_path, workers=2) as supervisor:
        supervisor.send(signal.SIGHUP)
        supervisor.wait_for_log("reloading: checking")
        supervisor.send(signal.SIGHUP)
        supervisor.wait_for_log("reloaded: 2 new workers", times=2)
        wait_for_status(connection, add_run(connection, {}), "SUCCESSFUL")
        wait_until(lambda: len(supervisor.worker_pids()) == 2, 10, "only the newest two workers")


def _runs(pid: int) -> bool:
    return psutil.pid_exists(pid) and is_running(psutil.Process(pid))


def _backends(connection: Connection) -> int:
    row = connection.execute(
        "select count(*) from pg_stat_activity"
        " where datname = current_database() and application_name like 'reproq-prefork%'"
    ).fetchone()
    assert row is not None
    return int(row[0])
