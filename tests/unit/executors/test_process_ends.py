"""What is done at the beginning and at the end of processes that run tasks, each tried in a fork."""

from __future__ import annotations

import atexit
import logging
import logging.handlers
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reproq_prefork import hooks
from reproq_prefork.executors.process_ends import (
    begin_task_process,
    begin_worker,
    end_task_process,
    end_worker,
)
from reproq_prefork.unix.signals import set_mask
from tests.support.unix.children import status_of

MOMENTS = (
    hooks.on_worker_start,
    hooks.on_worker_stop,
    hooks.on_task_process_start,
    hooks.on_task_process_end,
    hooks.on_attempt_failed,
)


@pytest.fixture(autouse=True)
def no_hooks() -> Iterator[None]:
    yield
    for moment in MOMENTS:
        moment.functions.clear()


def in_a_fork(program: Callable[[], None], *, of_the_test: bool = True) -> None:
    """`of_the_test`: it leaves what this test's own process has to clean up."""

    def run() -> int:
        set_mask(())
        if of_the_test:
            atexit._clear()
            for info in weakref.finalize._registry.values():  # type: ignore[attr-defined]
                info.atexit = False
        program()
        return 0

    assert status_of(run) == 0


def test_the_functions_of_a_moment_are_called_in_order_and_each_once() -> None:
    called: list[str] = []
    moment = hooks.Moment("a moment", "")
    first, second = (lambda: called.append("first")), (lambda: called.append("second"))
    for function in (first, second, first):
        assert moment(function) is function
    moment.call(pytest.fail)
    assert called == ["first", "second"]


def test_a_function_that_raises_is_reported_and_keeps_no_other_from_its_call() -> None:
    called: list[str] = []
    reports: list[str] = []

    @hooks.on_worker_start
    def breaks() -> None:
        raise KeyError("cache")

    hooks.on_worker_start(lambda: called.append("other"))
    begin_worker(reports.append, is_fork=False)
    assert called == ["other"]
    (report,) = reports
    assert report.startswith("on_worker_start: ")
    assert report.endswith("breaks has failed: KeyError: 'cache'")


def test_a_function_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "LIMIT_S", 0.2)
    reports: list[str] = []
    hooks.on_task_process_start(lambda: time.sleep(30))
    in_a_fork(lambda: begin_task_process(reports.append))
    hooks.on_worker_start(lambda: time.sleep(30))
    began = time.monotonic()
    begin_worker(reports.append, is_fork=False)
    assert time.monotonic() - began < 10
    assert reports == ["on_worker_start: was ended after 0.2 s"]


def test_a_fork_calls_only_the_exit_functions_that_it_has_registered_itself(tmp_path: Path) -> None:
    def worker() -> None:
        atexit.register((tmp_path / "of the worker").touch)

        def task() -> None:
            begin_task_process(pytest.fail)
            atexit.register((tmp_path / "of the task").touch)
            end_task_process(pytest.fail)

        in_a_fork(task, of_the_test=False)
        assert [path.name for path in tmp_path.iterdir()] == ["of the task"]
        end_worker(pytest.fail)
        assert (tmp_path / "of the worker").exists()

    in_a_fork(worker)


def test_buffered_log_records_are_written_once_by_the_process_that_has_made_them(tmp_path: Path) -> None:
    def worker() -> None:
        target = logging.FileHandler(tmp_path / "log", delay=True)
        log = logging.getLogger("app of a test")
        log.addHandler(logging.handlers.MemoryHandler(1000, target=target))
        log.warning("of the worker")

        def task() -> None:
            begin_task_process(pytest.fail)
            log.warning("of the task")
            end_task_process(pytest.fail)

        in_a_fork(task, of_the_test=False)
        assert (tmp_path / "log").read_text() == "of the task\n"
        end_worker(pytest.fail)
        assert (tmp_path / "log").read_text() == "of the task\nof the worker\n"

    in_a_fork(worker)


@pytest.mark.parametrize("is_fork", [True, False])
def test_a_temporary_directory_of_a_template_outlives_its_workers(is_fork: bool) -> None:
    def template() -> None:
        directory = tempfile.TemporaryDirectory()
        atexit.register(weakref.finalize._exitfunc)  # type: ignore[attr-defined]  # as its first use does

        def worker() -> None:
            begin_worker(pytest.fail, is_fork=is_fork)
            end_worker(pytest.fail)

        in_a_fork(worker, of_the_test=False)
        assert Path(directory.name).exists() is is_fork
        directory.cleanup()

    in_a_fork(template)
