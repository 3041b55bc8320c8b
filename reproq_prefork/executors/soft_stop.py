"""Asks a Python task to end, from a signal handler: by an exception in its code, or by cancelling its coroutine.

The exception is never raised where it could lose a result. A signal that is handled between the last step of the
task and the end of `call` comes too late, and the result is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import FrameType, FunctionType, MethodType
from typing import Any

from reproq_prefork.executors.contract import Stop
from reproq_prefork.task_exceptions import TaskCancelled, TaskInterrupted, TaskStopped, TaskTimeout

_EXCEPTIONS: dict[Stop, type[TaskStopped]] = {
    Stop.DEADLINE: TaskTimeout,
    Stop.CANCEL: TaskCancelled,
    Stop.QUIT: TaskInterrupted,
    Stop.LEASE: TaskInterrupted,
}
_WEIGHT = {Stop.DEADLINE: 1, Stop.CANCEL: 2, Stop.QUIT: 3, Stop.LEASE: 4}

_STOPPED = object()  # instead of a result


class SignalledStop:
    """`SoftStop` for a task in the main thread of this process. Signal handlers call `request`."""

    __slots__ = ("_delivered", "_frame", "_stop_task", "_wanted")

    def __init__(self) -> None:
        self._wanted: Stop | None = None
        self._delivered: Stop | None = None  # the reason that the task really got
        self._frame: FrameType | None = None
        self._stop_task: Callable[[Stop, FrameType | None], None] | None = None

    @property
    def requested(self) -> Stop | None:
        return self._delivered

    def request(self, stop: Stop, frame: FrameType | None) -> None:
        """Ask the task to end, once for each reason. A weaker reason than the last one does nothing.

        `frame`: the frame that the signal interrupted. A request before `call` is delivered when `call` begins. A
        request after `call` is never delivered.
        """
        if self._wanted is not None and _WEIGHT[stop] <= _WEIGHT[self._wanted]:
            return
        self._wanted = stop
        if self._stop_task is not None:
            self._stop_task(stop, frame)

    def call(
        self,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        *,
        run_coroutine: Callable[[Coroutine[Any, Any, Any]], Any] | None = None,
    ) -> Any:
        if not isinstance(function, FunctionType | MethodType):
            function = _with_frame(function)
        self._frame = sys._getframe()
        self._stop_task = self._raise
        if self._wanted is not None:
            self._stop_task = None
            raise self._exception(self._wanted)
        try:
            result = function(*args, **kwargs)
            # There must be no other call between these two lines: a handler runs where a call ends.
            self._stop_task = None
        finally:
            self._stop_task = None
            self._frame = None
        if not inspect.iscoroutine(result):
            return result
        result = (run_coroutine or asyncio.run)(self._stoppable(result))
        if result is _STOPPED:
            assert self._wanted is not None
            raise self._exception(self._wanted)
        return result

    def _raise(self, stop: Stop, frame: FrameType | None) -> None:
        # In the frame of `call` itself, the function has not begun yet or has already returned.
        if frame is not self._frame:
            raise self._exception(stop)

    def _exception(self, stop: Stop) -> TaskStopped:
        self._delivered = stop
        return _EXCEPTIONS[stop](stop.value)

    async def _stoppable(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Await the coroutine. Returns `_STOPPED` if the task was asked to end.

        It is a value because an exception would pass through code of others, which may not expect one that does
        not inherit from `Exception`. Also, the coroutine may run in another thread than the signal handlers.
        """
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def cancel(stop: Stop, _frame: FrameType | None) -> None:
            self._delivered = stop
            with contextlib.suppress(RuntimeError):  # the loop is already closed
                loop.call_soon_threadsafe(task.cancel)

        self._stop_task = cancel
        if self._wanted is not None:
            self._stop_task = None
            coroutine.close()
            return _STOPPED
        try:
            return await coroutine
        except asyncio.CancelledError:
            if self._delivered is None:
                raise
            return _STOPPED
        finally:
            self._stop_task = None


def _with_frame(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a function that is implemented in C a Python frame, so that a handler can see that it runs."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call
