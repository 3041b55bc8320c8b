"""Runs a Python task in the worker itself: nothing is faster, and nothing protects the worker from the task.

The watch looks from signal handlers, which Python runs between two steps of the task. While a task executes no
step of Python, such as in a loop of a C library, no handler runs. The master then kills the worker, and the task
with it.
"""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from types import FrameType

from reproq_prefork.executors.contract import Runtime, Stop, TaskWillNotDie, Watch
from reproq_prefork.executors.process_io import CANCEL_GRACE_S, KILL_TIMEOUT_S
from reproq_prefork.executors.python_outcome import outcome_of_error
from reproq_prefork.executors.soft_stop import SignalledStop
from reproq_prefork.model.outcome import Abandoned, AttemptReport, Completed, Success, Usage
from reproq_prefork.model.run import ClaimedRun
from reproq_prefork.unix.own_children import OwnChildren
from reproq_prefork.unix.signals import (
    CANCEL_SIGNAL,
    MASTERS_OWN,
    block_all,
    change_mask,
    handler_of,
    reset_to_new_interpreter,
    set_mask,
)

# Signals that may bring news to the watch: orders for the worker, and the timer.
LOOK_AT = (signal.SIGTERM, signal.SIGQUIT, CANCEL_SIGNAL, signal.SIGALRM)
# Signals that the worker relies on, and whose handlers a task may have changed.
RESTORED = tuple({*MASTERS_OWN, *LOOK_AT, signal.SIGCHLD, signal.SIGPIPE})
SHORTEST_LOOK_S = 0.001  # 0 would disarm the timer
READ_INTERVAL_S = 0.001
CHECK_INTERVAL_S = 0.001
ALARM_TOLERANCE_S = 0.001
_RETURNED = (Success, Completed)


class InlineExecutor:
    batches = True

    def __init__(self, runtime: Runtime, *, children: OwnChildren | None = None) -> None:
        """`runtime` is already loaded. `children`: those of this process that are not a task's."""
        self._children = OwnChildren(keeps_pools=True) if children is None else children
        self._runtime = runtime
        self._signals: _Signals | None = None
        self._watched: _Watched | None = None
        self._meter = _Meter()
        self._alarm = _Alarm()
        self._pid = os.getpid()
        self._checked_at = 0.0

    @property
    def announces(self) -> bool:
        return self._runtime.announces

    def run(self, run: ClaimedRun, watch: Watch) -> AttemptReport:
        self._meter.start()
        watched = self._begin(watch)
        try:
            try:
                # What a task sets for itself (a language, a time zone, a trace) is not there for the next one.
                report = copy_context().run(self._runtime.perform, run, watched.stop)
            except BaseException as error:
                report = AttemptReport(outcome_of_error(error, watched.stop.requested))
            if os.getpid() != self._pid:
                # This is a child that the task forked, and it has left the task's code. It must not become a
                # second worker.
                os._exit(0)
        finally:
            self._end()
        if watched.lease_lost:
            report = AttemptReport(Abandoned(Stop.LEASE.value))
        if isinstance(report.outcome, _RETURNED):
            exit_ = "returned"
        else:
            exit_ = "raised"
            self._rest(failed=True)  # the run may be tried again; by then, nothing of this attempt may exist
        return AttemptReport(report.outcome, self._meter.usage(exit_), report.announced)

    def announce(self, run_id: int, watch: Watch) -> str | None:
        watched = self._begin(watch)
        try:
            watched.stop.call(self._runtime.announce, (run_id,), {})
        except BaseException as error:
            return f"{type(error).__name__}: {error}"
        finally:
            self._end()
            self.rest()
        return None

    def rest(self) -> None:
        self._rest(failed=False)

    def _rest(self, *, failed: bool) -> None:
        if self._signals is not None:
            self._alarm.disarm()
            self._signals.restore()
            # Processes that a task has started end with it. Pools that it keeps live as long as the worker.
            if not self._children.end_others(within_s=KILL_TIMEOUT_S, failed=failed):
                raise TaskWillNotDie("a process that the task has started is still there after SIGKILL")
        self._checked_at = time.monotonic()

    def _begin(self, watch: Watch) -> _Watched:
        """From now on signals make `watch` look. If it returns a reason to stop, the task gets it."""
        if self._signals is None:
            self._pid = os.getpid()
            self._signals = _Signals(self._look)
            _ForksOfTasks(lambda: self._watched is not None)
        self._watched = watched = _Watched(watch, self._alarm)
        self._alarm.go_off_within(watch.wait_s())
        return watched

    def _end(self) -> None:
        self._watched = None
        # Undoing the changes of a task takes as long as a small task, so it happens at most once a millisecond.
        if time.monotonic() - self._checked_at > CHECK_INTERVAL_S:
            self.rest()

    def _look(self, _signum: int, frame: FrameType | None) -> None:
        # While no task runs, the wakeup pipe tells the worker everything.
        if self._watched is not None:
            self._watched.look(frame)


class _Watched:
    """One task under its watch."""

    __slots__ = ("_alarm", "_is_looking", "_kill_at", "_watch", "lease_lost", "stop")

    def __init__(self, watch: Watch, alarm: _Alarm) -> None:
        self.stop = SignalledStop()
        self.lease_lost = False
        self._watch = watch
        self._alarm = alarm
        self._is_looking = False
        self._kill_at: float | None = None

    def look(self, frame: FrameType | None) -> None:
        if self._is_looking:
            return  # a signal arrived while another is handled; that one sets the timer when it is done
        self._is_looking = True
        try:
            self._watch.tend()
            stop = self._watch.look()
        finally:
            self._is_looking = False
            self._alarm.set(self._watch.wait_s())
        if stop is Stop.LEASE:
            self.lease_lost = True
        if stop is Stop.CANCEL:
            self._kill_after_grace()
        if stop is not None:
            self.stop.request(stop, frame)

    def _kill_after_grace(self) -> None:
        """Kill this worker if the task ignores a cancel.

        The master knows every other reason to end a task, and ends the worker itself. It does not know of cancels.
        """
        now = time.monotonic()
        if self._kill_at is None:
            self._kill_at = now + CANCEL_GRACE_S
        elif now >= self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


class _Alarm:
    """ITIMER_REAL, for the time when the watch must look again. One setting serves all small tasks before that."""

    def __init__(self) -> None:
        self._goes_off_at = 0.0

    def go_off_within(self, wait_s: float) -> None:
        now = time.monotonic()
        if not now < self._goes_off_at <= now + wait_s + ALARM_TOLERANCE_S:
            self.set(wait_s)

    def set(self, wait_s: float) -> None:
        wait_s = max(SHORTEST_LOOK_S, wait_s)
        self._goes_off_at = time.monotonic() + wait_s
        signal.setitimer(signal.ITIMER_REAL, wait_s)

    def disarm(self) -> None:
        self._goes_off_at = 0.0
        signal.setitimer(signal.ITIMER_REAL, 0)


class _Signals:
    """Handlers, mask and wakeup descriptor of a worker, from its first task on. Undoes what a task changes."""

    def __init__(self, look: Callable[[int, FrameType | None], None]) -> None:
        self._mask = change_mask(signal.SIG_BLOCK, RESTORED)
        for signum in LOOK_AT:
            signal.signal(signum, look)
        self._handlers = [(signum, handler_of(signum)) for signum in RESTORED]
        self._wakeup_fd = signal.set_wakeup_fd(-1)
        self._put_back()

    def restore(self) -> None:
        for signum, handler in self._handlers:
            if handler_of(signum) is not handler:
                self._put_back()
                return
        if change_mask(signal.SIG_BLOCK, ()) != self._mask:
            self._put_back()
        else:
            signal.set_wakeup_fd(self._wakeup_fd, warn_on_full_buffer=False)

    def _put_back(self) -> None:
        change_mask(signal.SIG_BLOCK, RESTORED)
        for signum, handler in self._handlers:
            if handler is not None and handler_of(signum) is not handler:
                signal.signal(signum, handler)
        signal.set_wakeup_fd(self._wakeup_fd, warn_on_full_buffer=False)
        change_mask(signal.SIG_SETMASK, self._mask)


class _ForksOfTasks:
    """In a process that a task forks, such as one of a pool, signals mean what they mean in any program.

    All signals are blocked around the fork: one that comes before the child has its own handlers must not be lost.
    """

    def __init__(self, is_in_task: Callable[[], bool]) -> None:
        self._is_in_task = is_in_task
        self._of_thread = threading.local()
        os.register_at_fork(
            before=self._before, after_in_parent=self._in_parent, after_in_child=self._in_child
        )

    def _before(self) -> None:
        self._of_thread.mask = block_all() if self._is_in_task() else None

    def _in_parent(self) -> None:
        if self._of_thread.mask is not None:
            set_mask(self._of_thread.mask)

    def _in_child(self) -> None:
        if self._of_thread.mask is not None:
            signal.set_wakeup_fd(-1)
            reset_to_new_interpreter()
            set_mask(self._of_thread.mask)


class _Meter:
    """What each task uses in this process: CPU time, including its children, and the peak memory so far.

    Asking the kernel takes as long as a small task, so the meter asks at most once a millisecond. For a shorter
    task it takes the elapsed time as CPU time.
    """

    def __init__(self) -> None:
        self._read()
        self._started_at = self._read_at

    def start(self) -> None:
        self._started_at = time.monotonic()
        if self._started_at - self._read_at > READ_INTERVAL_S:
            self._read()

    def usage(self, exit_: str) -> Usage:
        now = time.monotonic()
        cpu_s = now - self._started_at
        if cpu_s > READ_INTERVAL_S:
            before_s = self._cpu_s
            self._read()
            cpu_s = self._cpu_s - before_s
        return Usage(exit_, cpu_s, self._peak_rss_kib)

    def _read(self) -> None:
        own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
        self._cpu_s = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
        self._peak_rss_kib = own.ru_maxrss
        self._read_at = time.monotonic()
