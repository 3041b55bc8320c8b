"""The template as a user meets it: what is imported how often, whose children workers are, what a deploy does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from reproq_prefork.unix import proc
from tests.support.supervisor.shop import Shop
from tests.support.supervisor.supervisor import Connection, Supervisor, is_running, wait_for_status
from tests.support.waiting import wait_until


@pytest.fixture(params=["fork", "inline"])
def executor(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_application_is_imported_by_the_check_and_once_for_all_workers(
    database_url: str, connection: Connection, tmp_path: Path, executor: str
) -> None:
    shop = Shop(tmp_path)
    with shop.supervisor(database_url, workers=3, executor=executor) as supervisor:
        (template,) = supervisor.template_pids()
        assert shop.imports()[1:] == [template]
        runs = [shop.enqueue(connection, "draw") for _ in range(30)]
        drawn = [wait_for_status(connection, run_id, "SUCCESSFUL")["result"] for run_id in runs]
        assert len({number for _, number in drawn}) == len(drawn), "no two of them draw the same"
        assert len(shop.imports()) == 2
        assert supervisor.stop() == 0
        assert "Traceback" not in supervisor.log()
        assert "Warning" not in supervisor.log()


def test_workers_are_children_of_the_master_and_hold_no_descriptor_of_the_template(
    database_url: str, tmp_path: Path
) -> None:
    shop = Shop(tmp_path)
    with shop.supervisor(database_url, workers=3) as supervisor:
        (template,) = supervisor.template_pids()
        assert proc.children_of(template) == []
        workers = supervisor.worker_pids()
        assert len(workers) == 3
        assert set(proc.children_of(supervisor.pid)) == {template, supervisor.steward_pid(), *workers}
        assert _sockets(template)
        for worker in workers:
            assert not _sockets(worker) & _sockets(template)


def _sockets(pid: int) -> set[str]:
    links = {str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()}
    return {link for link in links if link.startswith("socket:")}


def test_an_external_program_has_no_template(database_url: str, tmp_path: Path) -> None:
    with Supervisor(database_url, tmp_path) as supervisor:
        assert supervisor.template_pids() == []


def test_a_worker_that_is_recycled_comes_from_the_template(
    database_url: str, connection: Connection, tmp_path: Path, executor: str
) -> None:
    shop = Shop(tmp_path)
    with shop.supervisor(
        database_url, workers=1, executor=executor, environ={"REPROQ_MAX_TASKS": "3"}
    ) as supervisor:
        runs = [shop.enqueue(connection, "version") for _ in range(12)]
        rows = [wait_for_status(connection, run_id, "SUCCESSFUL") for run_id in runs]
        assert {row["attempts"] for row in rows} == {1}
        assert len({row["worker_ids"][0] for row in rows}) >= 4
        assert len(shop.imports()) == 2
        assert supervisor.stop() == 0


def test_ttin_and_ttou_change_the_number_of_forked_workers(database_url: str, tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    with shop.supervisor(database_url, workers=2) as supervisor:
        supervisor.send(signal.SIGTTIN)
        wait_until(lambda: len(supervisor.booted_worker_pids()) == 3, 10, "a third worker")
        supervisor.send(signal.SIGTTOU)
        wait_until(lambda: len(supervisor.worker_pids()) == 2, 10, "only two workers")
        assert len(shop.imports()) == 2


def test_a_reload_imports_new_code_in_a_new_template(
    database_url: str, connection: Connection, tmp_path: Path, executor: str
) -> None:
    shop = Shop(tmp_path)
    with shop.supervisor(database_url, executor=executor) as supervisor:
        (old,) = supervisor.template_pids()
        running = shop.enqueue(connection, "sleep", 1.5)
        wait_for_status(connection, running, "RUNNING")
        shop.write(version=2)
        supervisor.send(signal.SIGHUP)
        supervisor.wait_for_log("reloaded: 2 new workers")
        # An old worker that was idle may have taken one more.
        wait_until(lambda: shop.result(connection, "version") == 2, 10, "the new code to run")
        assert wait_for_status(connection, running, "SUCCESSFUL")["attempts"] == 1
        wait_until(lambda: len(supervisor.template_pids()) == 1, 10, "the old template to be gone")
        assert supervisor.template_pids() != [old]
        assert len(shop.imports()) == 4
        assert supervisor.stop() == 0


ONLY_IN_A_CHECK = """
import setproctitle
if setproctitle.getproctitle() != "reproq-prefork: check":
    raise RuntimeError("it works in the check alone")
"""


def test_an_application_that_only_the_template_cannot_import_ends_the_start(
    database_url: str, tmp_path: Path
) -> None:
    with Shop(tmp_path, ONLY_IN_A_CHECK).supervisor(database_url).starting() as supervisor:
        assert supervisor.wait() == 3
        assert "RuntimeError: it works in the check alone" in supervisor.log()
        assert "giving up: the template ended before it was ready: exit status 2" in supervisor.log()


def test_a_reload_that_only_the_template_cannot_import_is_rolled_back(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    shop = Shop(tmp_path)
    with shop.supervisor(database_url) as supervisor:
        workers, templates = supervisor.worker_pids(), supervisor.template_pids()
        shop.write(ONLY_IN_A_CHECK, version=2)
        supervisor.send(signal.SIGHUP)
        supervisor.wait_for_log("reload rolled back, the old workers stay: the template ended")
        run_id = shop.enqueue(connection, "version")
        assert wait_for_status(connection, run_id, "SUCCESSFUL")["result"] == 1
        assert (supervisor.worker_pids(), supervisor.template_pids()) == (workers, templates)


def test_the_log_format_follows_the_settings_of_the_current_workers(
    database_url: str, tmp_path: Path
) -> None:
    shop = Shop(tmp_path)
    with shop.supervisor(database_url) as supervisor:
        (tmp_path / "reproq.toml").write_text('log_format = "json"\n')
        shop.write(ONLY_IN_A_CHECK, version=2)
        supervisor.send(signal.SIGHUP)
        supervisor.wait_for_log("reload rolled back, the old workers stay")
        supervisor.send(signal.SIGUSR1)
        supervisor.wait_for_log("state: running")
        masters = [
            line for line in supervisor.log().splitlines() if " master: " in line or '"master"' in line
        ]
        assert not [line for line in masters if line.startswith("{")]

        shop.write(version=2)
        supervisor.send(signal.SIGHUP)
        supervisor.wait_for_log("reloaded: 2 new workers")
        supervisor.send(signal.SIGUSR1)
        supervisor.wait_for_log("state: running", times=2)
        said = [line for line in supervisor.log().splitlines() if "state: running" in line]
        assert [line.startswith("{") for line in said] == [False, True]


HANGS_IN_A_TEMPLATE = """
import setproctitle, time
while setproctitle.getproctitle() == "reproq-prefork: template":
    time.sleep(0.1)
"""


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGQUIT])
def test_a_stop_during_the_import_of_the_application_ends_the_import(
    database_url: str, tmp_path: Path, signum: int
) -> None:
    with Shop(tmp_path, HANGS_IN_A_TEMPLATE).supervisor(database_url).starting() as supervisor:
        wait_until(supervisor.template_pids, 10, "a template")
        family = supervisor.family()
        assert supervisor.stop(signum) == 0
        wait_until(lambda: not any(map(is_running, family)), 5, "all of them to be gone")


def test_an_import_that_hangs_is_ended_at_the_boot_timeout(database_url: str, tmp_path: Path) -> None:
    shop = Shop(tmp_path, HANGS_IN_A_TEMPLATE)
    with shop.supervisor(database_url, environ={"REPROQ_BOOT_TIMEOUT": "1s"}).starting() as supervisor:
        assert supervisor.wait() == 3
        assert "it was not ready within 1 s" in supervisor.log()


UNFIT = {
    "threads": "import threading\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()",
    "connection": "import socket\nconnection, other_end = socket.socketpair()",
    "event loop": "import asyncio\nloop = asyncio.new_event_loop()",
}


@pytest.mark.parametrize("what", UNFIT)
def test_if_an_import_does_not_survive_a_fork_each_worker_imports_and_the_log_says_so(
    database_url: str, connection: Connection, tmp_path: Path, what: str
) -> None:
    shop = Shop(tmp_path, UNFIT[what])
    with shop.supervisor(database_url, executor="inline") as supervisor:
        assert "each worker imports the application for itself: importing it has" in supervisor.log()
        assert supervisor.template_pids() == []
        assert set(supervisor.worker_pids()) <= set(shop.imports())
        before = supervisor.worker_pids()
        os.kill(before[0], signal.SIGKILL)

        def another_has_imported_it() -> bool:
            workers = set(supervisor.booted_worker_pids())
            return len(workers) == 2 and before[0] not in workers and workers <= set(shop.imports())

        wait_until(another_has_imported_it, 10, "another worker that imports for itself")
        run_id = shop.enqueue(connection, "version")
        assert wait_for_status(connection, run_id, "SUCCESSFUL")["result"] == 1
        assert supervisor.stop() == 0


FIT = """
import logging, logging.handlers, socket
logging.getLogger("shop").addHandler(logging.FileHandler("shop.log"))
datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

@task
def log(text):
    logging.getLogger("shop").warning(text)
"""


def test_a_log_file_opened_by_the_import_is_shared_by_all_workers(
    database_url: str, connection: Connection, tmp_path: Path, executor: str
) -> None:
    shop = Shop(tmp_path, FIT)
    with shop.supervisor(database_url, executor=executor) as supervisor:
        assert len(supervisor.template_pids()) == 1
        runs = [shop.enqueue(connection, "log", f"line {number}") for number in range(20)]
        for run_id in runs:
            wait_for_status(connection, run_id, "SUCCESSFUL")
        lines = (tmp_path / "shop.log").read_text().splitlines()
        assert sorted(lines) == sorted(f"line {number}" for number in range(20))


LEAVES_A_PROCESS = """
import subprocess
subprocess.Popen(["sleep", "600"])
"""


def test_processes_started_by_the_import_end_with_the_template(database_url: str, tmp_path: Path) -> None:
    with Shop(tmp_path, LEAVES_A_PROCESS).supervisor(database_url) as supervisor:
        (template,) = supervisor.template_pids()
        (left,) = proc.children_of(template)
        process = psutil.Process(left)
        os.kill(template, signal.SIGKILL)
        wait_until(lambda: not is_running(process), 5, "what it left to be gone")
        wait_until(lambda: len(supervisor.template_pids()) == 1, 10, "another template")
        (again,) = supervisor.template_pids()
        wait_until(lambda: proc.children_of(again), 10, "the import to be over")
        last = psutil.Process(proc.children_of(again)[0])
        assert supervisor.stop() == 0
        wait_until(lambda: not is_running(last), 5, "all to be gone")


def test_the_state_dump_and_the_titles_show_the_template(database_url: str, tmp_path: Path) -> None:
    with Shop(tmp_path).supervisor(database_url) as supervisor:
        (template,) = supervisor.template_pids()
        supervisor.send(signal.SIGUSR1)
        supervisor.wait_for_log(f"template (pid {template}): ready")
        assert "reproq-prefork: template" in supervisor.titles()


AS_PID_1 = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]


def test_workers_are_children_of_a_master_with_pid_1_too(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    if subprocess.run([*AS_PID_1, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no pid namespace may be made here")
    shop = Shop(tmp_path)
    environ = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": database_url,
        "ALLOWED_TASK_MODULES": shop.name,
        "REPROQ_WORKERS": "2",
        "POLL_INTERVAL": "100ms",
        "REPROQ_ENV_FILE": "",
    }
    argv = [*AS_PID_1, sys.executable, "-m", "reproq_prefork"]
    with subprocess.Popen(argv, cwd=tmp_path, env=environ, stderr=subprocess.DEVNULL) as unshare:
        try:
            run_id = shop.enqueue(connection, "version")
            wait_for_status(connection, run_id, "SUCCESSFUL")
            (init,) = psutil.Process(unshare.pid).children()
            (master,) = init.children()
            titles = sorted(" ".join(child.cmdline()).split(" [")[0].strip() for child in master.children())
            assert [title.removeprefix("reproq-prefork: ") for title in titles] == [
                "steward",
                "template",
                "worker 0",
                "worker 1",
            ]
            init.send_signal(signal.SIGTERM)
            assert unshare.wait(20) == 0
        finally:
            unshare.kill()
