"""Tasks in a process that stands for the worker; signals, timers and children are real."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reproq_prefork.executors import inline
from reproq_prefork.executors.contract import Stop
from reproq_prefork.executors.inline import LOOK_AT, InlineExecutor
from reproq_prefork.model.outcome import (
    Abandoned,
    AttemptReport,
    Cancelled,
    Failure,
    FailureKind,
    Interrupted,
    Outcome,
    Success,
)
from reproq_prefork.task_exceptions import TaskStopped, TaskTimeout
from reproq_prefork.unix import proc
from reproq_prefork.unix.signals import CANCEL_SIGNAL, SignalInbox
from tests.support.fakes.runs import a_run
from tests.support.fakes.watch import FakeWatch
from tests.support.unix.children import forked
from tests.support.unix.worker_process import FunctionRuntime, ending_of, in_a_worker
from tests.support.waiting import wait_until


def run(function: Callable[[], Any], watch: FakeWatch | None = None) -> AttemptReport:
    return ending_of(InlineExecutor, function, watch)


def failure_of(function: Callable[[], Any], watch: FakeWatch | None = None) -> Failure:
    outcome = run(function, watch).outcome
    assert isinstance(outcome, Failure)
    return outcome


def run_here(function: Callable[[], Any], watch: FakeWatch | None = None) -> AttemptReport:
    """For a test that is in a worker already."""
    executor = InlineExecutor(FunctionRuntime(function))
    report = executor.run(a_run(), watch or FakeWatch())
    executor.rest()
    return report


# --- how it ends ---


def test_the_return_value_of_a_function_is_the_result_and_its_usage_is_known() -> None:
    def task() -> int:
        while time.process_time() < 0.2:
            pass
        return 3

    report = run(task)
    assert report.outcome == Success("3")
    assert report.usage is not None
    assert report.usage.exit == "returned"
    assert 0 < report.usage.cpu_s < 5
    assert report.usage.peak_rss_kib > 1_000


def test_the_cpu_time_is_that_of_the_task_and_not_of_the_worker() -> None:
    def program(_inbox: SignalInbox) -> None:
        while time.process_time() < 0.3:
            pass
        usage = run_here(lambda: 1).usage
        assert usage is not None
        assert usage.cpu_s < 0.2

    in_a_worker(program)


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(0), KeyboardInterrupt(), MemoryError()])
def test_any_exception_is_a_failure_and_does_not_end_the_worker(error: BaseException) -> None:
    def task() -> None:
        raise error

    report = run(task)
    assert isinstance(report.outcome, Failure)
    assert (report.outcome.kind, report.outcome.exception) == (FailureKind.FAILED, type(error).__name__)
    assert report.usage is not None
    assert report.usage.exit == "raised"


def test_a_coroutine_is_run_to_its_end() -> None:
    async def task() -> int:
        await asyncio.sleep(0.01)
        return 3

    assert run(task).outcome == Success("3")


# --- how it is stopped ---


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        (Stop.CANCEL, Cancelled(Stop.CANCEL.value)),
        (Stop.QUIT, Interrupted(Stop.QUIT.value)),
        (Stop.LEASE, Abandoned(Stop.LEASE.value)),
    ],
)
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_task_ends_for_each_reason_that_the_watch_finds(
    stop: Stop, expected: Outcome, is_async: bool
) -> None:
    async def wait() -> None:
        await asyncio.sleep(30)

    began = time.monotonic()
    task = wait if is_async else lambda: time.sleep(30)
    assert run(task, FakeWatch(stop)).outcome == expected
    assert time.monotonic() - began < 10


def test_a_task_past_its_deadline_has_timed_out() -> None:
    outcome = failure_of(lambda: time.sleep(30), FakeWatch(Stop.DEADLINE))
    assert (outcome.kind, outcome.exception) == (
        FailureKind.TIMEOUT,
        "reproq_prefork.TaskTimeout",
    )


def test_a_task_that_never_blocks_is_stopped_too() -> None:
    def task() -> None:
        while True:
            pass

    assert failure_of(task, FakeWatch(Stop.DEADLINE)).kind is FailureKind.TIMEOUT


def test_a_task_that_catches_the_deadline_and_returns_has_succeeded() -> None:
    def task() -> str:
        try:
            time.sleep(30)
        except TaskTimeout:
            return "half of it"
        return "all of it"

    assert run(task, FakeWatch(Stop.DEADLINE)).outcome == Success('"half of it"')


def test_the_result_of_a_task_whose_lease_has_ended_is_dropped() -> None:
    def task() -> None:
        try:
            time.sleep(30)
        except TaskStopped:
            return

    assert run(task, FakeWatch(Stop.LEASE)).outcome == Abandoned(Stop.LEASE.value)


@pytest.mark.parametrize("signum", [s for s in LOOK_AT if s is not signal.SIGALRM])
def test_a_signal_to_the_worker_makes_the_watch_look_at_once(signum: int) -> None:
    came: list[int] = []

    def program(inbox: SignalInbox) -> AttemptReport:
        def task() -> None:
            os.kill(os.getpid(), signum)
            time.sleep(30)

        def has_come() -> bool:
            came.extend(inbox.take())
            return signum in came

        return run_here(task, FakeWatch(Stop.QUIT, has_come, look_s=20))

    assert in_a_worker(program).outcome == Interrupted(Stop.QUIT.value)


def test_a_cancelled_task_that_ignores_its_exception_ends_with_its_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inline, "CANCEL_GRACE_S", 0.2)

    def task() -> None:
        while True:
            try:
                time.sleep(30)
            except TaskStopped:
                continue

    def worker() -> int:
        SignalInbox((signal.SIGTERM,))
        proc.adopt_orphans()
        run_here(task, FakeWatch(Stop.CANCEL))
        return 0

    with forked(worker) as child:
        wait_until(lambda: child.exitcode is not None, 10, "the worker to end")
        assert child.exitcode == -signal.SIGKILL


def test_the_watch_looks_at_intervals_and_does_not_spin() -> None:
    def program(_inbox: SignalInbox) -> int:
        watch = FakeWatch(look_s=0.05)
        run_here(lambda: time.sleep(1), watch)
        return watch.looks

    assert 5 <= in_a_worker(program) <= 21


# --- the worker afterwards ---


def test_handlers_mask_and_wakeup_fd_are_restored_whatever_a_task_did() -> None:
    def task() -> None:
        for signum in (*LOOK_AT, signal.SIGCHLD, signal.SIGUSR2):
            signal.signal(signum, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        signal.set_wakeup_fd(-1)
        signal.setitimer(signal.ITIMER_REAL, 60)

    def program(inbox: SignalInbox) -> None:
        tasks: list[Callable[[], Any]] = [lambda: 1, task, lambda: signal.getitimer(signal.ITIMER_REAL)[0]]
        executor = InlineExecutor(FunctionRuntime(lambda: tasks.pop(0)()))
        executor.run(a_run(), FakeWatch())  # from the first one on the executor listens, too
        before = {signum: signal.getsignal(signum) for signum in signal.valid_signals()}
        executor.run(a_run(), FakeWatch())
        executor.rest()
        assert {signum: signal.getsignal(signum) for signum in signal.valid_signals()} == before
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
        outcome = executor.run(a_run(), FakeWatch()).outcome
        assert isinstance(outcome, Success)
        assert 0 < float(outcome.result) < 5, "the next task is looked at in time, too"
        inbox.take()
        signal.raise_signal(signal.SIGTERM)
        assert select.select([inbox], [], [], 0)[0] == [inbox]
        assert inbox.take() == [signal.SIGTERM]

    in_a_worker(program)


def test_signal_changes_of_a_longer_task_are_undone_before_the_next_task() -> None:
    def task() -> None:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 0)
        time.sleep(0.005)

    def program(_inbox: SignalInbox) -> None:
        tasks: list[Callable[[], Any]] = [task, lambda: time.sleep(20)]
        executor = InlineExecutor(FunctionRuntime(lambda: tasks.pop(0)()))
        executor.run(a_run(), FakeWatch())
        outcome = executor.run(a_run(), FakeWatch(Stop.DEADLINE, look_s=0.05)).outcome
        assert isinstance(outcome, Failure)
        assert outcome.kind is FailureKind.TIMEOUT

    in_a_worker(program)


def test_the_watch_looks_in_time_at_a_near_deadline_after_a_task_with_a_far_one() -> None:
    def program(_inbox: SignalInbox) -> None:
        tasks: list[Callable[[], Any]] = [lambda: None, lambda: time.sleep(20)]
        executor = InlineExecutor(FunctionRuntime(lambda: tasks.pop(0)()))
        executor.run(a_run(), FakeWatch(look_s=10))
        outcome = executor.run(a_run(), FakeWatch(Stop.DEADLINE, look_s=0.05)).outcome
        assert isinstance(outcome, Failure)
        assert outcome.kind is FailureKind.TIMEOUT

    in_a_worker(program)


def test_a_timer_that_goes_off_as_a_task_ends_does_not_interrupt_the_worker() -> None:
    def program(_inbox: SignalInbox) -> None:
        for number in range(2_000):
            watch = FakeWatch(look_s=1e-6 * (number % 200))
            assert run_here(lambda: 3, watch).outcome == Success("3")

    in_a_worker(program)


class SoonOver(FakeWatch):
    """Its first look comes after `soon_s`, and finds the deadline."""

    def __init__(self, soon_s: float) -> None:
        super().__init__(Stop.DEADLINE, look_s=0.05)
        self._soon_s: float | None = soon_s

    def wait_s(self) -> float:
        soon_s, self._soon_s = self._soon_s, None
        return super().wait_s() if soon_s is None else soon_s


def test_a_deadline_at_any_moment_is_a_timeout_or_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inline, "SHORTEST_LOOK_S", 1e-6)

    def program(_inbox: SignalInbox) -> dict[str, int]:
        seen: dict[str, int] = {}
        for number in range(600):
            outcome = run_here(lambda: 3, SoonOver(1e-6 * (1 + number % 200))).outcome
            assert outcome == Success("3") or (
                isinstance(outcome, Failure) and outcome.kind is FailureKind.TIMEOUT
            )
            seen[type(outcome).__name__] = seen.get(type(outcome).__name__, 0) + 1
        return seen

    assert set(in_a_worker(program)) == {"Success", "Failure"}


def test_processes_started_by_a_task_end_with_it(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"

    def task() -> None:
        subprocess.Popen(["sleep", "60"])
        subprocess.Popen(["sh", "-c", f"echo $$ > {pid_file}; exec sleep 60"], start_new_session=True)
        while not pid_file.exists() or not pid_file.read_text():
            time.sleep(0.01)

    assert run(task).outcome == Success("null")
    assert proc.identity_of(int(pid_file.read_text())) is None


@pytest.mark.parametrize("error", [None, ValueError("of the child")])
def test_a_child_that_leaves_the_tasks_code_does_not_become_a_second_worker(
    error: Exception | None, tmp_path: Path
) -> None:
    diary = tmp_path / "diary"

    def task() -> int:
        child = os.fork()
        if child:
            os.waitpid(child, 0)
        elif error is not None:
            raise error
        return 1 if child else 2

    def program(_inbox: SignalInbox) -> Outcome:
        outcome = run_here(task).outcome
        with diary.open("a") as pages:
            pages.write(f"{outcome}\n")
        return outcome

    assert in_a_worker(program) == Success("1")
    assert len(diary.read_text().splitlines()) == 1


def test_a_thread_left_by_a_task_does_not_harm_the_next_task() -> None:
    def program(_inbox: SignalInbox) -> None:
        go_on = threading.Event()
        thread = threading.Thread(target=go_on.wait)
        assert run_here(thread.start).outcome == Success("null")
        assert isinstance(run_here(lambda: time.sleep(30), FakeWatch(Stop.CANCEL)).outcome, Cancelled)
        go_on.set()
        thread.join()

    in_a_worker(program)


# --- announcements ---


def test_an_announcement_is_made_in_the_worker_and_its_failure_is_reported(tmp_path: Path) -> None:
    told = tmp_path / "told"

    def announce(run_id: int) -> None:
        told.write_text(str(run_id))

    def fail(_run_id: int) -> None:
        raise LookupError("no receiver")

    def program(_inbox: SignalInbox) -> list[str | None]:
        hang = FunctionRuntime(announce=lambda _run_id: time.sleep(30))
        return [
            InlineExecutor(FunctionRuntime(announce=announce)).announce(7, FakeWatch()),
            InlineExecutor(FunctionRuntime(announce=fail)).announce(7, FakeWatch()),
            InlineExecutor(hang).announce(7, FakeWatch(Stop.DEADLINE)),
        ]

    assert in_a_worker(program) == [
        None,
        "LookupError: no receiver",
        f"TaskTimeout: {Stop.DEADLINE.value}",
    ]
    assert told.read_text() == "7"


def test_the_cancel_signal_makes_the_watch_look() -> None:
    assert CANCEL_SIGNAL in LOOK_AT
