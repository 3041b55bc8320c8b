"""A template that dies, stops or hangs at any moment: nothing is lost, and nothing but forks waits for it."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import time
from pathlib import Path

import psutil
import pytest

from reproq_prefork.unix import proc
from tests.support.supervisor.shop import Shop
from tests.support.supervisor.supervisor import Connection, Supervisor, is_running, run_row, wait_for_status
from tests.support.waiting import wait_until

RECOVERY_S = 0.25
GENEROUS = 8  # the machine is shared, so a test allows this many times as long


HOLD = """
@task
def hold(started):
    Path(started).touch()
    time.sleep(60)
"""


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def test_a_template_that_is_killed_under_load_is_replaced_and_no_task_notices(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    shop = Shop(tmp_path)
    with shop.supervisor(database_url, workers=3) as supervisor:
        workers = supervisor.worker_pids()
        runs = [shop.enqueue(connection, "sleep", 0.02) for _ in range(150)]
        wait_for_status(connection, runs[0], "RUNNING", "SUCCESSFUL")
        kill(supervisor.template_pids()[0])
        for run_id in runs:
            assert wait_for_status(connection, run_id, "SUCCESSFUL")["attempts"] == 1
        assert supervisor.worker_pids() == workers
        wait_until(lambda: len(shop.imports()) == 3, 10, "another template")
        kill(workers[0])
        wait_until(lambda: _is_replaced(supervisor, workers[0]), 10, "the worker to be replaced")
        assert supervisor.stop() == 0


def _is_replaced(supervisor: Supervisor, worker: int) -> bool:
    workers = supervisor.booted_worker_pids()
    return len(workers) == 3 and worker not in workers


def test_while_a_template_is_stopped_dead_workers_are_reset_and_it_is_replaced_when_needed(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    shop = Shop(tmp_path, HOLD)
    started = tmp_path / "started"
    with shop.supervisor(database_url, workers=2) as supervisor:
        (stopped,) = supervisor.template_pids()
        os.kill(stopped, signal.SIGSTOP)
        lost = shop.enqueue(connection, "hold", str(started), max_attempts=1)
        wait_until(started.exists, 10, "the task to start")  # from then on its attempt counts
        holder = run_row(connection, lost)["leased_by"]
        row = connection.execute("select pid from reproq_workers where id = %s", [holder]).fetchone()
        assert row is not None
        killed_at = time.monotonic()
        kill(row[0])
        wait_for_status(connection, lost, "FAILED", timeout_s=RECOVERY_S * GENEROUS)
        assert time.monotonic() - killed_at < RECOVERY_S * GENEROUS
        runs = [shop.enqueue(connection, "version") for _ in range(20)]
        for run_id in runs:
            assert wait_for_status(connection, run_id, "SUCCESSFUL")["attempts"] == 1
        supervisor.send(signal.SIGUSR1)
        supervisor.wait_for_log("(being forked)")
        supervisor.wait_for_log("it has not forked a worker within")
        wait_until(lambda: len(supervisor.booted_worker_pids()) == 2, 20, "another template's worker")
        assert stopped not in supervisor.template_pids()
        assert supervisor.stop() == 0


def test_a_stop_does_not_wait_for_a_template_that_is_stopped(database_url: str, tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    with shop.supervisor(database_url, workers=2) as supervisor:
        os.kill(supervisor.template_pids()[0], signal.SIGSTOP)
        kill(supervisor.worker_pids()[0])
        assert supervisor.stop() == 0


def test_a_stopped_template_dies_with_its_master(database_url: str, tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    with shop.supervisor(database_url, workers=2) as supervisor:
        family = supervisor.family()
        os.kill(supervisor.template_pids()[0], signal.SIGSTOP)
        supervisor.send(signal.SIGKILL)
        wait_until(lambda: not any(map(is_running, family)), 5, "all of them to be gone")


@pytest.mark.timeout(180)
def test_a_master_that_is_killed_at_any_moment_of_its_start_leaves_nothing(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    dice = random.Random(seed)
    shop = Shop(tmp_path)
    with shop.supervisor(database_url, workers=4):
        pass
    for _ in range(30):
        with shop.supervisor(database_url, workers=4).starting() as supervisor:
            if dice.random() < 0.7:  # most of what is delicate lies behind the import of the template
                wait_until(supervisor.template_pids, 20, "a template")
                time.sleep(dice.uniform(0, 0.3))
            else:
                time.sleep(dice.uniform(0, 1))
            supervisor.send(signal.SIGKILL)
            supervisor.wait()
            _wait_until_empty(supervisor.pid)
    wait_until(
        lambda: connection.execute("select count(*) from reproq_workers").fetchone() == (0,),
        10,
        "no worker to be registered",
    )


def _wait_until_empty(session: int) -> None:
    wait_until(lambda: not _of_session(session), 10, "all of them to be gone")


def _of_session(leader: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(process.pid) == leader and is_running(process):
                found.append(process)
    return found


@pytest.mark.timeout(180)
def test_any_process_may_be_killed_at_any_moment_of_a_fork_and_every_run_is_done(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """Workers, templates, and the processes between them, which have the title of a template."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    dice = random.Random(seed)
    shop = Shop(tmp_path)
    with shop.supervisor(database_url, workers=4, executor="inline") as supervisor:
        runs = [shop.enqueue(connection, "sleep", 0.01, max_attempts=1000) for _ in range(600)]
        ends_at = time.monotonic() + 12
        kills = 0
        while time.monotonic() < ends_at:
            title = "reproq-prefork: template" if dice.random() < 0.1 else "reproq-prefork: (worker|template)"
            victims = _called(supervisor, title)
            if victims:
                kill(dice.choice(victims))
                kills += 1
            time.sleep(dice.uniform(0, 0.15))  # the pace of the kills is what is asked for
        assert kills >= 5  # who dies at its start again and again is forked ever later
        for run_id in runs:
            wait_for_status(connection, run_id, "SUCCESSFUL", timeout_s=60)
        wait_until(lambda: len(supervisor.booted_worker_pids()) == 4, 40, "as many workers as before")
        wait_until(lambda: len(supervisor.template_pids()) == 1, 40, "a template")
        wait_until(lambda: len(supervisor.family()) == 7, 10, "nobody else")
        assert "Traceback" not in supervisor.log()
        assert supervisor.stop() == 0
    assert connection.execute("select count(*) from task_runs where status <> 'SUCCESSFUL'").fetchone() == (
        0,
    )


def _called(supervisor: Supervisor, title: str) -> list[int]:
    pids = []
    for process in supervisor.family()[1:]:
        with contextlib.suppress(psutil.NoSuchProcess):
            if re.match(title, " ".join(process.cmdline())):
                pids.append(process.pid)
    return pids


@pytest.mark.timeout(120)
def test_any_process_between_template_and_master_may_be_killed_and_every_run_is_done(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """Each worker runs one task, so forks never stop, and for half a second processes are killed."""
    shop = Shop(tmp_path)
    environ = {"REPROQ_MAX_TASKS": "1", "REPROQ_BOOT_TIMEOUT": "5s"}
    with shop.supervisor(database_url, workers=4, executor="inline", environ=environ) as supervisor:
        runs = [shop.enqueue(connection, "version", max_attempts=1000) for _ in range(300)]
        hits = 0
        ends_at = time.monotonic() + 10
        while time.monotonic() < ends_at:
            for template in supervisor.template_pids():
                shoot_until = time.monotonic() + 0.2
                while time.monotonic() < shoot_until:
                    for pid in proc.descendants_of([template]):
                        kill(pid)
                        hits += 1
            time.sleep(0.3)  # some forks are to succeed
        assert hits > 10
        for run_id in runs:
            wait_for_status(connection, run_id, "SUCCESSFUL", timeout_s=60)
        wait_until(lambda: len(supervisor.booted_worker_pids()) == 4, 40, "as many workers as before")
        wait_until(lambda: len(supervisor.family()) == 7, 40, "one template, and nobody else")
        assert "Traceback" not in supervisor.log()
        assert supervisor.stop() == 0
