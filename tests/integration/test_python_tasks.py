"""`reproq_prefork.task` from its definition to its result: a real master, real workers, a real server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from reproq_prefork import Task, cancel, enqueue_many
from tests.support.supervisor.application import Application, application_in
from tests.support.supervisor.supervisor import Connection, Supervisor, add_run, run_row, wait_for_status
from tests.support.waiting import wait_until

TASKS = """
import asyncio, os, signal, sys, time
from pathlib import Path
from reproq_prefork import Discard
from reproq_prefork import Retry
from reproq_prefork import TaskCancelled
from reproq_prefork import TaskTimeout
from reproq_prefork import task

VERSION = 1

@task
def add(a, b):
    print("adding", a, b)
    return a + b

@task
def version():
    return [VERSION, os.getpid(), os.getppid()]

@task
async def slowly(name):
    await asyncio.sleep(0.01)
    return f"slowly {name}"

@task(retry_base=0, max_attempts=3, takes_context=True)
def third_time(context):
    if context.attempt < 3:
        raise LookupError(f"not at attempt {context.attempt}")
    return [context.attempt, context.run_id, context.cancelled]

@task(max_attempts=5)
def hopeless():
    raise Discard("no attempt can help")

@task(takes_context=True)
def later(context):
    if context.attempt == 1:
        raise Retry("not yet", after=0.05)
    return context.attempt

@task(timeout=0.3, max_attempts=1)
def sleepy(told=None):
    try:
        time.sleep(60)
    except TaskTimeout:
        Path(told).touch()
        raise

@task
def wait(started, ended=None):
    Path(started).touch()
    try:
        time.sleep(60)
    except TaskCancelled:
        Path(ended).touch()
        raise

@task
def short(started):
    Path(started).touch()
    time.sleep(0.5)

@task(max_attempts=1)
def crash():
    print("the last words")
    os.kill(os.getpid(), signal.SIGSEGV)

@task(unique=True)
def once(name):
    return name

@task(unique=lambda order, **rest: f"order-{order}")
def ship(order, fast=False):
    return order

@task(executor="fork")
def forked():
    return os.getppid()

@task
def leave_a_thread():
    import threading
    threading.Thread(target=time.sleep, args=(600,)).start()
    return os.getpid()

@task
def grow(megabytes):
    global ballast
    ballast = b"x" * (megabytes * 1024 * 1024)

@task
def environment(name):
    return [os.environ.get(name), os.getcwd(), sys.path[0]]

def no_task():
    return 1
"""


NEXT_CENTURY = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture
def application(tmp_path: Path) -> Iterator[Application]:
    with application_in(tmp_path / "application") as application:
        application.write(TASKS)
        application.task("add")  # imported now: some tests write another one later
        yield application


def supervisor_of(
    database_url: str, application: Application, *, workers: int = 1, environ: Mapping[str, str] | None = None
) -> Supervisor:
    warnings = {"PYTHONWARNINGS": "error", "PYTHONDONTWRITEBYTECODE": "1"}
    return application.host(database_url, workers=workers, environ={**warnings, **(environ or {})})


@pytest.fixture(params=["fork", "inline"])
def executor(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def running(database_url: str, application: Application, executor: str) -> Any:
    with supervisor_of(database_url, application, environ={"REPROQ_EXECUTOR": executor}) as supervisor:
        yield supervisor
        assert supervisor.stop() == 0
        assert "Traceback" not in supervisor.log()
        assert "Warning" not in supervisor.log()


def result_of(connection: Connection, task: Task[..., Any], *args: Any, **kwargs: Any) -> Any:
    run = task.enqueue(connection, *args, **kwargs)
    return wait_for_status(connection, run.id, "SUCCESSFUL")["result"]


def failed(connection: Connection, task: Task[..., Any], *args: Any) -> dict[str, Any]:
    return wait_for_status(connection, task.enqueue(connection, *args).id, "FAILED")


@pytest.mark.usefixtures("running")
def test_a_call_is_enqueued_and_its_result_kept(
    connection: Connection, application: Application, executor: str
) -> None:
    run = application.task("add").enqueue(connection, 1, b=2.5)
    assert run.task_path == f"{application.name}.add"
    row = wait_for_status(connection, run.id, "SUCCESSFUL")
    assert row["result"] == 3.5
    last = row["last_attempt"]
    assert last["exit"] == ("exit status 0" if executor == "fork" else "returned")
    assert last["cpu_seconds"] >= 0
    assert last["peak_rss_kib"] > 1_000
    assert last.get("output") == ("adding 1 2.5" if executor == "fork" else None)
    assert result_of(connection, application.task("slowly"), "Ada") == "slowly Ada"


def test_fork_uses_a_new_process_and_inline_uses_the_worker(
    running: Supervisor, connection: Connection, application: Application, executor: str
) -> None:
    (worker,) = running.worker_pids()
    first, second = (result_of(connection, application.task("version")) for _ in range(2))
    if executor == "fork":
        assert first[2] == second[2] == worker
        assert first[1] != second[1]
    else:
        assert first[1] == second[1] == worker


@pytest.mark.usefixtures("running")
def test_a_task_is_retried_by_its_own_rules(connection: Connection, application: Application) -> None:
    run = application.task("third_time").enqueue(connection)
    row = wait_for_status(connection, run.id, "SUCCESSFUL")
    assert row["result"] == [3, run.id, False]
    assert [(e["kind"], e["exception"], e["message"]) for e in row["errors"]] == [
        ("failed", "LookupError", "not at attempt 1"),
        ("failed", "LookupError", "not at attempt 2"),
    ]
    assert all("cpu_seconds" in error for error in row["errors"])
    row = failed(connection, application.task("hopeless"))
    assert (row["attempts"], row["errors"][0]["exception"]) == (1, "reproq_prefork.Discard")
    assert result_of(connection, application.task("later")) == 2


@pytest.mark.usefixtures("running")
def test_a_task_past_its_deadline_gets_an_exception(
    connection: Connection, application: Application, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    row = failed(connection, application.task("sleepy"), str(told))
    assert row["errors"][0]["kind"] == "timeout"
    assert told.exists()


@pytest.mark.usefixtures("running")
def test_a_running_task_is_cancelled(
    connection: Connection, application: Application, tmp_path: Path
) -> None:
    started, ended = tmp_path / "started", tmp_path / "ended"
    run = application.task("wait").enqueue(connection, str(started), str(ended))
    wait_until(started.exists, 20, "the task to start")
    cancel(connection, run.id)
    row = wait_for_status(connection, run.id, "CANCELLED")
    assert ended.exists()
    assert row["errors"][-1]["kind"] == "cancelled"


def test_quit_stops_a_task_at_once_and_hands_it_back(
    database_url: str, connection: Connection, application: Application, executor: str, tmp_path: Path
) -> None:
    started = tmp_path / "started"
    with supervisor_of(database_url, application, environ={"REPROQ_EXECUTOR": executor}) as supervisor:
        run = application.task("wait").enqueue(connection, str(started))
        wait_until(started.exists, 20, "the task to start")
        assert supervisor.stop(signal.SIGQUIT) == 0
    row = run_row(connection, run.id)
    assert (row["status"], row["attempts"]) == ("PENDING", 0)


@pytest.mark.usefixtures("running")
def test_a_unique_task_is_enqueued_once(connection: Connection, application: Application) -> None:
    once, ship = application.task("once"), application.task("ship")
    first = once.using(run_after=NEXT_CENTURY).enqueue(connection, "a")
    assert once.enqueue(connection, "a").id == first.id
    assert not once.enqueue(connection, "a").created
    assert once.enqueue(connection, "b").created
    first = ship.using(run_after=NEXT_CENTURY).enqueue(connection, 7)
    assert first.unique_key == "order-7"
    assert ship.enqueue(connection, 7, fast=True).id == first.id


def test_many_calls_are_enqueued_at_once_each_with_the_options_of_its_task(
    connection: Connection, application: Application
) -> None:
    hopeless, once = application.task("hopeless"), application.task("once").using(priority=7)
    new_runs = [hopeless.new_run(), once.new_run("lamp"), once.new_run("lamp"), once.new_run("desk")]
    runs = enqueue_many(connection, new_runs)
    assert [run.created for run in runs] == [True, True, False, True]
    assert runs[1].id == runs[2].id
    assert [(run.max_attempts, run.priority) for run in runs[:2]] == [(5, 0), (3, 7)]
    assert runs[3].payload == once.enqueue(connection, "desk").payload


@pytest.mark.usefixtures("running")
def test_a_path_outside_the_allowed_tasks_is_refused_and_not_retried(
    connection: Connection, application: Application
) -> None:
    def refused(payload: dict[str, Any]) -> str:
        row = wait_for_status(connection, add_run(connection, payload), "FAILED")
        assert (row["attempts"], row["errors"][0]["kind"]) == (1, "not_allowed")
        return str(row["errors"][0]["message"])

    assert "is not one of those that may hold tasks here" in refused(
        {"v": 1, "task": "os.system", "args": ["true"]}
    )
    assert "is not a task" in refused({"v": 1, "task": f"{application.name}.no_task"})
    assert "not the dotted path of a task" in refused({"v": 1, "task": "add"})
    assert "does not name a Python task" in refused({"value": 1})
    row = wait_for_status(
        connection, add_run(connection, {"v": 1, "task": f"{application.name}.absent"}), "FAILED"
    )
    assert (row["attempts"], row["errors"][0]["kind"]) == (3, "failed")
    assert row["errors"][0]["message"] == f"the module {application.name} has no absent"


def test_a_crash_of_a_fork_is_a_failed_attempt_and_its_worker_goes_on(
    database_url: str, connection: Connection, application: Application
) -> None:
    with supervisor_of(database_url, application) as supervisor:
        (worker,) = supervisor.worker_pids()
        row = failed(connection, application.task("crash"))
        error = row["errors"][0]
        assert (error["kind"], error["exit"]) == ("killed", "killed by signal 11 (SIGSEGV)")
        assert error["output"] == "the last words"
        assert result_of(connection, application.task("version"))[2] == worker


def test_payloads_without_a_task_go_to_the_command_of_a_host_that_has_one(
    database_url: str, connection: Connection, application: Application
) -> None:
    command = f"{sys.executable} -I -S -c 'import sys; print(sys.argv[-1])'"
    environ = {"REPROQ_EXECUTOR": "fork", "EXECUTOR_COMMAND": command}
    with supervisor_of(database_url, application, environ=environ):
        row = wait_for_status(connection, add_run(connection, {"value": 1}), "SUCCESSFUL")
        assert row["result"] == {"value": 1}
        assert result_of(connection, application.task("add"), 1, 2) == 3


def test_a_run_chooses_its_own_executor_and_is_forked_beside_the_threads_of_another(
    database_url: str, connection: Connection, application: Application
) -> None:
    with supervisor_of(database_url, application, environ={"REPROQ_EXECUTOR": "inline"}) as supervisor:
        (worker,) = supervisor.worker_pids()
        assert result_of(connection, application.task("forked")) == worker
        assert "beside threads" not in supervisor.log()
        assert result_of(connection, application.task("leave_a_thread")) == worker
        assert result_of(connection, application.task("forked")) == worker
        assert supervisor.log().count("forked beside threads") == 1
        assert "Traceback" not in supervisor.log()


def test_tasks_see_their_environment_and_directory(
    database_url: str, connection: Connection, application: Application, executor: str
) -> None:
    (application.directory / ".env").write_text("FLAVOUR=mint\n")
    environ = {"REPROQ_EXECUTOR": executor, "REPROQ_ENV_FILE": ".env"}
    with supervisor_of(database_url, application, environ=environ):
        directory = str(application.directory.resolve())
        assert result_of(connection, application.task("environment"), "FLAVOUR") == [
            "mint",
            directory,
            directory,
        ]


# --- deploys ---


def wait_for_version(connection: Connection, application: Application, version: int) -> None:
    def is_there() -> bool:
        return bool(result_of(connection, application.task("version"))[0] == version)

    wait_until(is_there, 20, f"version {version} of the code to run")


def test_hup_imports_new_code_and_a_broken_deploy_changes_nothing(
    database_url: str, connection: Connection, application: Application, executor: str
) -> None:
    with supervisor_of(database_url, application, environ={"REPROQ_EXECUTOR": executor}) as supervisor:
        wait_for_version(connection, application, 1)
        application.write(TASKS.replace("VERSION = 1", "VERSION = 1 / 0"))
        supervisor.send(signal.SIGHUP)
        supervisor.wait_for_log("ZeroDivisionError: division by zero")
        wait_for_version(connection, application, 1)
        # Of another size: Python's cache looks at that, and at the second.
        application.write(TASKS.replace("VERSION = 1", "VERSION = 22"))
        supervisor.send(signal.SIGHUP)
        wait_for_version(connection, application, 22)
        assert supervisor.stop() == 0


def test_a_module_that_cannot_be_imported_is_refused_at_the_start(
    database_url: str, application: Application
) -> None:
    application.write("import absent_module\n")
    with supervisor_of(database_url, application).starting() as supervisor:
        assert supervisor.wait() == 2
        assert (
            f"The module {application.name} of --allowed-task-modules cannot be imported: "
            f"ModuleNotFoundError: No module named 'absent_module' ({application.name}.py, line 1)"
        ) in supervisor.log()


def test_tasks_are_forked_beside_a_thread_of_the_import_with_one_warning(
    database_url: str, connection: Connection, application: Application
) -> None:
    application.write(
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(600,), name='poll', daemon=True).start()\n" + TASKS
    )
    with supervisor_of(database_url, application) as supervisor:
        for _ in range(4):
            assert result_of(connection, application.task("version"))[0] == 1
        assert supervisor.log().count("forked beside threads (poll)") == 1


def test_reload_brings_new_code_without_a_signal(
    database_url: str, connection: Connection, application: Application
) -> None:
    with supervisor_of(database_url, application, environ={"REPROQ_RELOAD": "true"}) as supervisor:
        wait_for_version(connection, application, 1)
        application.write(TASKS.replace("VERSION = 1", "VERSION = 22"))
        wait_for_version(connection, application, 22)
        assert supervisor.log().count("a file has changed") == 1
        family = supervisor.family()
        assert supervisor.stop() == 0
        wait_until(lambda: not any(map(psutil.Process.is_running, family)), 20, "all to be gone")


# --- workers that are replaced ---


def test_max_tasks_replaces_a_worker(
    database_url: str, connection: Connection, application: Application, executor: str
) -> None:
    environ = {"REPROQ_EXECUTOR": executor, "REPROQ_MAX_TASKS": "3"}
    with supervisor_of(database_url, application, environ=environ):
        rows = [
            wait_for_status(connection, application.task("add").enqueue(connection, n, 1).id, "SUCCESSFUL")
            for n in range(8)
        ]
    assert {row["attempts"] for row in rows} == {1}
    assert len({row["worker_ids"][0] for row in rows}) >= 3


def test_max_rss_replaces_a_worker_that_a_task_has_made_too_large(
    database_url: str, connection: Connection, application: Application
) -> None:
    environ = {"REPROQ_EXECUTOR": "inline", "REPROQ_MAX_RSS": "200M"}
    with supervisor_of(database_url, application, environ=environ) as supervisor:
        first = result_of(connection, application.task("version"))[1]
        assert result_of(connection, application.task("version"))[1] == first
        assert result_of(connection, application.task("grow"), 250) is None
        assert result_of(connection, application.task("version"))[1] != first
        assert "is ignored" not in supervisor.log()


def test_a_limit_below_the_size_of_a_new_worker_is_ignored(
    database_url: str, connection: Connection, application: Application
) -> None:
    environ = {"REPROQ_EXECUTOR": "inline", "REPROQ_MAX_RSS": "2M"}
    with supervisor_of(database_url, application, environ=environ) as supervisor:
        pids = {result_of(connection, application.task("version"))[1] for _ in range(3)}
        assert len(pids) == 1
        assert supervisor.log().count("--max-rss is ignored") == 1


def test_the_check_command_says_what_is_wrong_with_the_application(
    database_url: str, application: Application
) -> None:
    def check() -> str:
        done = subprocess.run(
            [sys.executable, "-m", "reproq_prefork", "check"],
            cwd=application.directory,
            env={
                "PATH": os.environ["PATH"],
                "DATABASE_URL": database_url,
                "ALLOWED_TASK_MODULES": application.name,
            },
            capture_output=True,
            text=True,
            timeout=30,
        )
        return done.stdout

    assert "executor  ok\n" in check()
    application.write("import absent_module\n")
    assert "ModuleNotFoundError" in check()


def test_the_payload_is_the_call(connection: psycopg.Connection[Any], application: Application) -> None:
    run = application.task("add").enqueue(connection, 1, b=[None, {"x": 1.5}])
    row = run_row(connection, run.id)
    assert json.loads(json.dumps(row["payload"])) == {
        "v": 1,
        "task": f"{application.name}.add",
        "args": [1],
        "kwargs": {"b": [None, {"x": 1.5}]},
    }
    assert row["spec_hash"] == application.task("add").spec(1, b=[None, {"x": 1.5}]).hash


# --- an import that changes its process ---


SIGNALS_OF_AN_IMPORT = {
    "SIGCHLD is ignored": "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
    "SIGTERM exits": "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))",
    "the wakeup descriptor is replaced": "signal.set_wakeup_fd(-1)",
    "all signals are blocked": "signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())",
}


@pytest.mark.parametrize("alone", [False, True], ids=["by a template", "each worker by itself"])
@pytest.mark.parametrize("change", SIGNALS_OF_AN_IMPORT.values(), ids=SIGNALS_OF_AN_IMPORT)
def test_the_signals_of_a_worker_are_its_own_whatever_the_import_does(
    database_url: str,
    connection: Connection,
    application: Application,
    tmp_path: Path,
    change: str,
    alone: bool,
) -> None:
    opened = "import socket\nkept = socket.socketpair()\n" if alone else ""
    application.write(f"import signal, sys\n{change}\n{opened}{TASKS}")
    with supervisor_of(database_url, application) as supervisor:
        for _ in range(2):
            row = wait_for_status(
                connection, application.task("add").enqueue(connection, 1, 2).id, "SUCCESSFUL"
            )
            assert (row["result"], row["attempts"]) == (3, 1)
        at_work = application.task("short").enqueue(connection, str(tmp_path / "started")).id
        wait_until((tmp_path / "started").exists, 20, "the task to start")
        assert supervisor.stop() == 0
        row = run_row(connection, at_work)
        assert (row["status"], row["attempts"], row["errors"]) == ("SUCCESSFUL", 1, [])
        assert ("each worker imports" in supervisor.log()) is alone


def test_a_thread_that_each_fork_starts_keeps_no_task_from_running(
    database_url: str, connection: Connection, application: Application
) -> None:
    """What libraries do that have a background thread, such as those that send traces."""
    application.write(
        "import os, threading, time\n"
        "def start():\n"
        "    threading.Thread(target=time.sleep, args=(600,), name='sender', daemon=True).start()\n"
        "os.register_at_fork(after_in_child=start)\n" + TASKS
    )
    with supervisor_of(database_url, application) as supervisor:
        for _ in range(3):
            row = wait_for_status(
                connection, application.task("add").enqueue(connection, 1, 2).id, "SUCCESSFUL"
            )
            assert (row["result"], row["attempts"]) == (3, 1)
        assert supervisor.log().count("forked beside threads (sender)") == 1
