"""Rows 26, 28, 29 and 36 of the fault list: what a host does to those who live on it."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import psutil
import pytest

from tests.support.supervisor.shop import Shop
from tests.support.supervisor.supervisor import (
    SHORT_LEASE,
    Connection,
    Supervisor,
    add_run,
    diary,
    run_row,
    wait_for_status,
)
from tests.support.unix.cgroups import cgroup
from tests.support.unix.faketime import clock
from tests.support.waiting import wait_until

MIB = 1 << 20


@pytest.mark.timeout(90)
def test_26_clocks_that_are_hours_off_and_jump_expire_no_lease_and_start_nothing_early(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    ahead, behind = clock(tmp_path, "+1h", name="ahead"), clock(tmp_path, "-1h", name="behind")
    with (
        Supervisor(database_url, tmp_path, workers=2, environ={**SHORT_LEASE, **ahead}),
        Supervisor(database_url, tmp_path, workers=2, environ={**SHORT_LEASE, **behind}),
    ):
        runs = [add_run(connection, {"sleep": 4}) for _ in range(4)]
        for run_id in runs:
            wait_for_status(connection, run_id, "RUNNING")
        (tmp_path / "ahead").write_text("-2h")
        (tmp_path / "behind").write_text("+2h")
        for run_id in runs:
            row = wait_for_status(connection, run_id, "SUCCESSFUL")
            assert (row["attempts"], row["claims"]) == (1, 1)
        later = connection.execute(
            "insert into task_runs (payload, spec_hash, run_after)"
            " values ('{}', repeat('0', 64), now() + interval '1.5 s') returning id"
        ).fetchone()
        assert later is not None
        row = wait_for_status(connection, later[0], "SUCCESSFUL")
        assert row["run_after"] <= row["started_at"] < row["finished_at"]
        assert (row["finished_at"] - row["run_after"]).total_seconds() < 10


def test_28_a_task_that_wants_too_much_memory_fails_alone(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    environ = {"REPROQ_TASK_MEMORY": "256M"}
    with Supervisor(database_url, tmp_path, workers=1, environ=environ) as supervisor:
        worker = supervisor.worker_pids()
        row = wait_for_status(
            connection, add_run(connection, {"hoard": 1024 * MIB}, max_attempts=1), "FAILED"
        )
        assert "MemoryError" in row["errors"][0]["stderr"]
        wait_for_status(connection, add_run(connection, {}), "SUCCESSFUL")
        assert supervisor.worker_pids() == worker


def test_28_the_oom_killer_ends_the_task_and_not_its_worker(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    with cgroup("memory") as group, Supervisor(database_url, tmp_path, workers=1) as supervisor:
        worker = supervisor.worker_pids()
        group.add(supervisor.family())
        group.limit("memory.limit_in_bytes", 200 * MIB)
        row = wait_for_status(
            connection, add_run(connection, {"hoard": 1024 * MIB}, max_attempts=1), "FAILED"
        )
        assert row["errors"][0]["kind"] == "killed"
        assert "signal 9" in row["errors"][0]["message"]
        wait_for_status(connection, add_run(connection, {}), "SUCCESSFUL")
        assert supervisor.worker_pids() == worker


@pytest.mark.parametrize("executor", ["command", "fork"])
def test_29_without_descriptors_no_task_is_started_and_none_is_charged(
    database_url: str, connection: Connection, tmp_path: Path, executor: str
) -> None:
    starter, payload = _executor(executor, database_url, tmp_path)
    with starter as supervisor:
        (worker,) = map(psutil.Process, supervisor.worker_pids())
        wait_for_status(connection, add_run(connection, payload), "SUCCESSFUL")
        before = worker.rlimit(psutil.RLIMIT_NOFILE)
        highest = max(int(path.name) for path in Path(f"/proc/{worker.pid}/fd").iterdir())
        worker.rlimit(psutil.RLIMIT_NOFILE, (highest + 2, before[1]))
        run_id = add_run(connection, payload)
        supervisor.wait_for_log("is handed back")
        worker.rlimit(psutil.RLIMIT_NOFILE, before)
        row = wait_for_status(connection, run_id, "SUCCESSFUL")
        assert (row["attempts"], row["errors"]) == (1, [])
        assert supervisor.worker_pids() == [worker.pid]


@pytest.mark.parametrize("executor", ["command", "fork"])
def test_29_without_processes_no_task_is_started_and_none_is_charged(
    database_url: str, connection: Connection, tmp_path: Path, executor: str
) -> None:
    starter, payload = _executor(executor, database_url, tmp_path)
    with cgroup("pids") as group, starter as supervisor:
        worker = supervisor.worker_pids()
        group.add(supervisor.family())
        group.limit("pids.max", group.read("pids.current"))
        run_id = add_run(connection, payload)
        supervisor.wait_for_log("is handed back")
        group.limit("pids.max", "max")
        row = wait_for_status(connection, run_id, "SUCCESSFUL")
        assert (row["attempts"], row["errors"]) == (1, [])
        assert supervisor.worker_pids() == worker


def test_29_a_worker_that_cannot_be_forked_is_tried_again_and_its_neighbours_work_on(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    with cgroup("pids") as group, Supervisor(database_url, tmp_path, workers=2) as supervisor:
        group.add(supervisor.family())
        group.limit("pids.max", group.read("pids.current"))
        first, second = supervisor.worker_pids()
        group.limit("pids.max", group.read("pids.current") - 1)  # the place of the dead one is not free
        psutil.Process(first).kill()
        supervisor.wait_for_log("no process can be started, trying again")
        assert second in supervisor.worker_pids()
        group.limit("pids.max", "max")
        wait_until(lambda: len(supervisor.booted_worker_pids()) == 2, 30, "another worker in its place")
        wait_for_status(connection, add_run(connection, {}), "SUCCESSFUL")


@pytest.mark.timeout(90)
def test_36_two_containers_with_one_host_name_and_the_same_pids_are_two_hosts(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed (the package util-linux)")
    container = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    pages = tmp_path / "diary"
    with Supervisor(database_url, tmp_path, workers=1, environ=SHORT_LEASE, within=container) as first:
        run_id = add_run(connection, {"wait_for": str(tmp_path / "go"), "diary": str(pages)})
        wait_for_status(connection, run_id, "RUNNING")
        with Supervisor(database_url, tmp_path, workers=1, environ=SHORT_LEASE, within=container):
            workers = connection.execute("select id, host, pid from reproq_workers").fetchall()
            assert len({worker_id for worker_id, _, _ in workers}) == 2
            assert len({(host, pid) for _, host, pid in workers}) == 1, "this is what could be mistaken"
            # Long past what the second would take a dead neighbour's run back after.
            ends_at = time.monotonic() + 6
            wait_until(lambda: time.monotonic() > ends_at, 10, "the second to have swept")
            assert run_row(connection, run_id)["claims"] == 1
            first.kill_all()
            (tmp_path / "go").touch()
            row = wait_for_status(connection, run_id, "SUCCESSFUL", timeout_s=30)
            assert row["attempts"] == 2
            assert row["errors"][0]["kind"] == "lease_expired"
    assert [what for what, *_ in diary(pages)] == ["start", "start", "end"]


def _executor(name: str, database_url: str, directory: Path) -> tuple[Supervisor, dict[str, object]]:
    """An installation with one worker, and a payload for it."""
    if name == "command":
        return Supervisor(database_url, directory, workers=1), {}
    shop = Shop(directory)
    return shop.supervisor(database_url, workers=1), shop.call("version")
