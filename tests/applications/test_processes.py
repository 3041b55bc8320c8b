"""Processes that applications start: helpers of an import, and pools that tasks keep."""

from __future__ import annotations

import os

import pytest

from reproq_prefork import Spec, enqueue
from tests.support.supervisor.application import Application
from tests.support.supervisor.supervisor import Connection, wait_for_status
from tests.support.waiting import wait_until

HELPER = """
import os, subprocess
from reproq_prefork import task

helper = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

@task
def echo(text):
    os.kill(helper.pid, 0)  # raises if it is gone
    return helper.pid

@task
def leave_a_process():
    return subprocess.Popen(["sleep", "600"]).pid
"""
POOL = """
import concurrent.futures, multiprocessing, os
from reproq_prefork import task

pool = None

@task
def square(number):
    global pool
    if pool is None:
        context = multiprocessing.get_context("{method}")
        pool = concurrent.futures.ProcessPoolExecutor(1, mp_context=context)
    return list(pool.map(abs, [-number]))[0]

@task
def terminate_a_pool():
    with multiprocessing.get_context("fork").Pool(2) as short:
        return sum(short.map(abs, range(10)))
"""


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def result_of(connection: Connection, name: str, task: str, *args: object) -> object:
    run = enqueue(connection, Spec.python_task(f"{name}.{task}", list(args), {}), max_attempts=1)
    return wait_for_status(connection, run.id, "SUCCESSFUL")["result"]


@pytest.mark.parametrize("executor", ["inline", "fork"])
def test_a_helper_of_the_import_lives_as_long_as_its_worker(
    database_url: str,
    connection: Connection,
    application: Application,
    executor: str,
) -> None:
    application.write(HELPER)
    with application.host(database_url, environ={"REPROQ_EXECUTOR": executor}) as supervisor:
        helpers = {result_of(connection, application.name, "echo", "hello") for _ in range(4)}
        left = int(str(result_of(connection, application.name, "leave_a_process")))
        wait_until(lambda: is_gone(left), 10, "the process that a task has left to end")
        helpers |= {result_of(connection, application.name, "echo", "hello") for _ in range(2)}
        (helper,) = (int(str(pid)) for pid in helpers)
        assert supervisor.stop() == 0
    wait_until(lambda: is_gone(helper), 10, "the helper to end with its worker")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_pool_of_inline_tasks_lives_as_long_as_its_worker(
    database_url: str,
    connection: Connection,
    application: Application,
    method: str,
) -> None:
    application.write(POOL.format(method=method))
    with application.host(database_url, environ={"REPROQ_EXECUTOR": "inline"}) as supervisor:
        assert [result_of(connection, application.name, "square", number) for number in range(4)] == [
            0,
            1,
            2,
            3,
        ]
        for _ in range(5):
            assert result_of(connection, application.name, "terminate_a_pool") == 45
        assert result_of(connection, application.name, "square", 5) == 5
        assert supervisor.stop() == 0
        assert "WARN" not in supervisor.log()


def test_children_of_inline_tasks_start_with_default_signals(
    database_url: str,
    connection: Connection,
    application: Application,
) -> None:
    application.write(
        "import multiprocessing, signal, subprocess, sys\n"
        "from reproq_prefork import task\n"
        "LOOK = 'import signal as s; print([n.name for n in s.valid_signals() if s.getsignal(n) is s.SIG_IGN])'\n"
        "def handled():\n"
        "    handlers = {str(s): signal.getsignal(s) for s in signal.valid_signals()}\n"
        "    return [name for name, handler in handlers.items() if callable(handler)]\n"
        "@task\n"
        "def ignored_by_a_program():\n"
        "    return subprocess.run([sys.executable, '-c', LOOK], capture_output=True, text=True).stdout.strip()\n"
        "@task\n"
        "def handled_in_a_fork():\n"
        "    with multiprocessing.get_context('fork').Pool(1) as pool:\n"
        "        return pool.apply(handled)\n"
    )
    with application.host(database_url, environ={"REPROQ_EXECUTOR": "inline"}):
        assert result_of(connection, application.name, "ignored_by_a_program") == "['SIGPIPE', 'SIGXFSZ']"
        assert result_of(connection, application.name, "handled_in_a_fork") == ["2"]
