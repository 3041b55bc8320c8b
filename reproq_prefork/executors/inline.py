"""A Python task in the worker itself: nothing is faster, and nothing protects the worker from it.

The watch looks from signal handlers, which Python runs between two steps of the task. A task that is at no step of
Python (in a library's loop in C) is ended with its worker, by the master.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType

from reproq_prefork import processes
from reproq_prefork.executors import Runtime, Stop, TaskWillNotDie, Watch
from reproq_prefork.executors.conversation import CANCEL_GRACE_S, KILL_TIMEOUT_S
from reproq_prefork.executors.python_outcome import outcome_of_error
from reproq_prefork.executors.soft_stop import SignalledStop
from reproq_prefork.signals import CANCEL_SIGNAL, MASTERS_OWN
from reproq_prefork.task_run import Abandoned, ClaimedRun, Completed, Ending, Success, Usage

# What may bring news to the watch: the worker's orders, and the time.
LOOK_AT = (signal.SIGTERM, signal.SIGQUIT, CANCEL_SIGNAL, signal.SIGALRM)
# What a task may have changed, and the worker relies on.
RESTORED = tuple({*MASTERS_OWN, *LOOK_AT, signal.SIGCHLD, signal.SIGPIPE})
SHORTEST_LOOK_S = 0.001  # 0 would disarm the timer


class InlineExecutor:
    batches = True

    def __init__(self, runtime: Runtime) -> None:
        """The runtime is loaded."""
        self._runtime = runtime
        self._signals: _Signals | None = None
        self._watched: _Watched | None = None

    @property
    def announces(self) -> bool:
        return self._runtime.announces

    def run(self, run: ClaimedRun, watch: Watch) -> Ending:
        own_pid, used_s = os.getpid(), _cpu_s()
        with _nothing_left_behind(), self._watching(watch) as watched:
            try:
                ending = self._runtime.perform(run, watched.stop)
            except BaseException as error:
                ending = Ending(outcome_of_error(error, watched.stop.requested))
            if os.getpid() != own_pid:
                # A child that the task has forked, and that came out of its code: no second worker.
                os._exit(0)
        if watched.lease_lost:
            ending = Ending(Abandoned(Stop.LEASE.value))
        usage = Usage(
            exit="returned" if isinstance(ending.outcome, Success | Completed) else "raised",
            cpu_s=max(0.0, _cpu_s() - used_s),
            peak_rss_kib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        )
        return Ending(ending.outcome, usage, ending.announced)

    def announce(self, run_id: int, watch: Watch) -> str | None:
        with _nothing_left_behind(), self._watching(watch) as watched:
            try:
                watched.stop.call(self._runtime.announce, (run_id,), {})
            except BaseException as error:
                return f"{type(error).__name__}: {error}"
        return None

    @contextlib.contextmanager
    def _watching(self, watch: Watch) -> Iterator[_Watched]:
        """Signals make `watch` look, and its reasons to stop go to the task."""
        if self._signals is None:
            self._signals = _Signals(self._look)
        self._watched = watched = _Watched(watch)
        watched.arm()
        try:
            yield watched
        finally:
            self._watched = None
            self._signals.restore()

    def _look(self, _signum: int, frame: FrameType | None) -> None:
        # Where no task runs, the wakeup pipe tells the worker all.
        if self._watched is not None:
            self._watched.look(frame)


class _Watched:
    """One task under its watch."""

    def __init__(self, watch: Watch) -> None:
        self.stop = SignalledStop()
        self.lease_lost = False
        self._watch = watch
        self._is_looking = False
        self._kill_at: float | None = None

    def look(self, frame: FrameType | None) -> None:
        if self._is_looking:
            return  # a signal while one is handled; the timer is armed when that is done
        self._is_looking = True
        try:
            stop = self._watch.look()
        finally:
            self._is_looking = False
            self.arm()
        if stop is Stop.LEASE:
            self.lease_lost = True
        if stop is Stop.CANCEL:
            self._end_the_stubborn()
        if stop is not None:
            self.stop.request(stop, frame)

    def _end_the_stubborn(self) -> None:
        """Whatever else ends a task is known to the master, which ends the worker; a cancellation is not."""
        now = time.monotonic()
        if self._kill_at is None:
            self._kill_at = now + CANCEL_GRACE_S
        elif now >= self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def arm(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, max(SHORTEST_LOOK_S, self._watch.wait_s()))


class _Signals:
    """Handlers, mask and wakeup descriptor of a worker, from its first task on. What a task sets is put back."""

    def __init__(self, look: Callable[[int, FrameType | None], None]) -> None:
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, RESTORED)
        for signum in LOOK_AT:
            signal.signal(signum, look)
        self._handlers = [(signum, signal.getsignal(signum)) for signum in RESTORED]
        self._wakeup_fd = signal.set_wakeup_fd(-1)
        self._put_back()

    def restore(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for signum, handler in self._handlers:
            if signal.getsignal(signum) is not handler:
                self._put_back()
                return
        if signal.pthread_sigmask(signal.SIG_BLOCK, ()) != self._mask:
            self._put_back()
        else:
            signal.set_wakeup_fd(self._wakeup_fd, warn_on_full_buffer=False)

    def _put_back(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, RESTORED)
        for signum, handler in self._handlers:
            if handler is not None and signal.getsignal(signum) is not handler:
                signal.signal(signum, handler)
        signal.set_wakeup_fd(self._wakeup_fd, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)


@contextlib.contextmanager
def _nothing_left_behind() -> Iterator[None]:
    """What the task has started ends with it."""
    try:
        yield
    finally:
        if processes.has_children() and not processes.kill_own_descendants(within_s=KILL_TIMEOUT_S):
            raise TaskWillNotDie("a process that the task has started is still there after SIGKILL")


def _cpu_s() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
