"""Asking a Python task to end from a signal handler: by an exception where it is, or by cancelling its coroutine.

The exception is never raised in a place where a result could be lost by it: a signal that is handled between
the task's last step and the end of `call` comes too late, and the result stands.
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

_STOPPED = object()  # in place of a result


class SignalledStop:
    """`SoftStop` for a task in the main thread of this process; `request` is for its signal handlers."""

    __slots__ = ("_frame", "_tell", "_told", "_wanted")

    def __init__(self) -> None:
        self._wanted: Stop | None = None
        self._told: Stop | None = None  # what the task was really told
        self._frame: FrameType | None = None
        self._tell: Callable[[Stop, FrameType | None], None] | None = None

    @property
    def requested(self) -> Stop | None:
        return self._told

    def request(self, stop: Stop, frame: FrameType | None) -> None:
        """Tell the task, once a reason; a lighter one than before says nothing new. `frame`: what the signal met.

        Before `call` it is told when that begins, after it never.
        """
        if self._wanted is not None and _WEIGHT[stop] <= _WEIGHT[self._wanted]:
            return
        self._wanted = stop
        if self._tell is not None:
            self._tell(stop, frame)

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
        self._tell = self._raise
        if self._wanted is not None:
            self._tell = None
            raise self._exception(self._wanted)
        try:
            result = function(*args, **kwargs)
            # Nothing that is called may stand between these two lines: a handler runs where a call ends.
            self._tell = None
        finally:
            self._tell = None
            self._frame = None
        if not inspect.iscoroutine(result):
            return result
        result = (run_coroutine or asyncio.run)(self._stoppable(result))
        if result is _STOPPED:
            assert self._wanted is not None
            raise self._exception(self._wanted)
        return result

    def _raise(self, stop: Stop, frame: FrameType | None) -> None:
        # In the frame of `call` itself the function has not begun, or has returned.
        if frame is not self._frame:
            raise self._exception(stop)

    def _exception(self, stop: Stop) -> TaskStopped:
        self._told = stop
        return _EXCEPTIONS[stop](stop.value)

    async def _stoppable(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Await it. It may run in another thread than the one that handles signals, and its exceptions pass
        through code of others, which may not expect one that is no Exception: so the end is told by a value.
        """
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def cancel(stop: Stop, _frame: FrameType | None) -> None:
            self._told = stop
            with contextlib.suppress(RuntimeError):  # the loop is closed by now
                loop.call_soon_threadsafe(task.cancel)

        self._tell = cancel
        if self._wanted is not None:
            self._tell = None
            coroutine.close()
            return _STOPPED
        try:
            return await coroutine
        except asyncio.CancelledError:
            if self._told is None:
                raise
            return _STOPPED
        finally:
            self._tell = None


def _with_frame(function: Callable[..., Any]) -> Callable[..., Any]:
    """What is implemented in C has no frame of its own by which a handler sees that it runs."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call
