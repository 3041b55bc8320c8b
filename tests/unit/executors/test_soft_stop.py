"""When a task is told to end, and when it is too late for that. The signals are real, and so are the moments."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import FrameType
from typing import Any

import pytest

from reproq_prefork.executors.contract import Stop
from reproq_prefork.executors.soft_stop import SignalledStop
from reproq_prefork.task_exceptions import TaskCancelled, TaskInterrupted, TaskStopped, TaskTimeout


@pytest.fixture
def no_collection() -> Iterator[None]:
    """What is raised in a callback of the garbage collector goes nowhere, and the tests' libraries have one."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def stop() -> Iterator[SignalledStop]:
    """SIGUSR1 is a deadline, SIGUSR2 a cancellation."""
    stop = SignalledStop()
    reasons = {signal.SIGUSR1: Stop.DEADLINE, signal.SIGUSR2: Stop.CANCEL}

    def ask(signum: int, frame: FrameType | None) -> None:
        stop.request(reasons[signal.Signals(signum)], frame)

    previous = {signum: signal.signal(signum, ask) for signum in reasons}
    yield stop
    for signum, handler in previous.items():
        signal.signal(signum, handler)


def tell(signum: int = signal.SIGUSR1) -> None:
    os.kill(os.getpid(), signum)


def test_a_function_that_nobody_stops_gives_its_result(stop: SignalledStop) -> None:
    assert stop.call(divmod, (7, 2), {}) == (3, 1)
    assert stop.call(lambda *args, **kwargs: (args, kwargs), (1,), {"a": 2}) == ((1,), {"a": 2})
    assert stop.requested is None


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        (Stop.DEADLINE, TaskTimeout),
        (Stop.CANCEL, TaskCancelled),
        (Stop.QUIT, TaskInterrupted),
        (Stop.LEASE, TaskInterrupted),
    ],
)
def test_each_reason_has_its_exception(reason: Stop, kind: type[TaskStopped]) -> None:
    stop = SignalledStop()
    with pytest.raises(kind, match=reason.value):
        stop.call(lambda: stop.request(reason, sys._getframe()), (), {})
    assert stop.requested is reason


def test_a_blocking_call_is_interrupted(stop: SignalledStop) -> None:
    timer = threading.Timer(0.05, tell)
    timer.start()
    with pytest.raises(TaskTimeout):
        stop.call(time.sleep, (30,), {})
    timer.join()


def test_a_task_stopped_before_the_call_is_not_started(stop: SignalledStop) -> None:
    tell()
    with pytest.raises(TaskTimeout):
        stop.call(pytest.fail, ("it was started",), {})
    assert stop.requested is Stop.DEADLINE


def test_a_coroutine_stopped_before_the_call_is_not_started_either(stop: SignalledStop) -> None:
    async def task() -> None:
        pytest.fail("it was started")

    def begin() -> Coroutine[Any, Any, None]:
        return task()

    def run_late(coroutine: Coroutine[Any, Any, Any]) -> Any:
        tell()
        return asyncio.run(coroutine)

    with pytest.raises(TaskTimeout):
        stop.call(begin, (), {}, run_coroutine=run_late)


def test_a_stop_after_the_call_has_no_effect(stop: SignalledStop) -> None:
    assert stop.call(lambda: 3, (), {}) == 3
    tell()
    assert stop.requested is None


def test_a_reason_is_raised_once_and_a_stronger_reason_after_it(stop: SignalledStop) -> None:
    def task() -> list[str]:
        told = []
        for signum in (signal.SIGUSR1, signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1):
            try:
                tell(signum)
            except TaskStopped as reason:
                told.append(type(reason).__name__)
        return told

    assert stop.call(task, (), {}) == ["TaskTimeout", "TaskCancelled"]


def _ask(stop: SignalledStop, _signum: int, frame: FrameType | None) -> None:
    stop.request(Stop.DEADLINE, frame)


def _interrupted_at_every_moment(function: Callable[..., Any]) -> None:
    """Fire a timer at moments spread over a call: it either gives its result, or was told in `function`."""
    results, told = 0, 0
    for number in range(3_000):
        stop = SignalledStop()
        previous = signal.signal(signal.SIGALRM, partial(_ask, stop))
        finished: list[bool] = []
        signal.setitimer(signal.ITIMER_REAL, 1e-6 * (1 + number % 60))
        try:
            assert stop.call(function, (finished,), {}) == 3
            results += 1
        except TaskTimeout:
            told += 1
        else:
            assert finished == [True]
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
    assert results
    assert told


@pytest.mark.usefixtures("no_collection")
def test_a_signal_at_any_moment_loses_no_result_and_raises_nothing_outside_the_task() -> None:
    def task(finished: list[bool]) -> int:
        for _ in range(100):
            pass
        finished.append(True)
        return 3

    _interrupted_at_every_moment(task)


def test_a_signal_that_is_handled_as_the_task_returns_comes_too_late(stop: SignalledStop) -> None:
    """Then the handler runs in the frame of `call`, and it must recognise this."""
    seen: list[str] = []

    def task() -> int:
        return 3

    def trace(frame: FrameType, event: str, _arg: object) -> Any:
        # The first event in the frame of `call` after the task has returned.
        if frame.f_code is SignalledStop.call.__code__ and seen == ["return"] and event == "line":
            seen.append("told")
            stop.request(Stop.DEADLINE, frame)
        if frame.f_code is task.__code__ and event == "return":
            seen.append("return")
        return trace

    def run() -> Any:
        sys.settrace(trace)
        try:
            return stop.call(task, (), {})
        finally:
            sys.settrace(None)

    assert run() == 3
    assert seen == ["return", "told"]
    assert stop.requested is None


# --- coroutines ---


def in_another_thread(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """As asgiref's async_to_sync does it."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


@pytest.mark.parametrize("run_coroutine", [None, in_another_thread], ids=["here", "thread"])
def test_a_coroutine_is_cancelled_wherever_it_runs(
    stop: SignalledStop, run_coroutine: Callable[[Coroutine[Any, Any, Any]], Any] | None
) -> None:
    seen: list[str] = []

    async def task() -> None:
        signal.raise_signal(signal.SIGUSR1) if run_coroutine is None else tell()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    with pytest.raises(TaskTimeout):
        stop.call(task, (), {}, run_coroutine=run_coroutine)
    assert seen == ["cancelled"]


def test_a_coroutine_that_outlives_its_cancellation_gives_its_result(stop: SignalledStop) -> None:
    async def task() -> int:
        with contextlib.suppress(asyncio.CancelledError):
            tell()
            await asyncio.sleep(30)
        return 3

    assert stop.call(task, (), {}) == 3


def test_a_coroutine_that_cancels_itself_raises_its_own_cancellation(stop: SignalledStop) -> None:
    async def task() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        stop.call(task, (), {})


def test_a_finished_coroutine_is_not_cancelled(stop: SignalledStop) -> None:
    def run_and_tell(coroutine: Coroutine[Any, Any, Any]) -> Any:
        result = asyncio.run(coroutine)
        tell()
        return result

    async def task() -> int:
        return 3

    assert stop.call(task, (), {}, run_coroutine=run_and_tell) == 3
    assert stop.requested is None
