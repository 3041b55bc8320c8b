"""One process that runs a task, and its pipes: from its start until no process of the task is left."""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reproq_prefork.executors.contract import Stop, TaskWillNotDie, Watch
from reproq_prefork.executors.tail import Tail
from reproq_prefork.model.outcome import Usage
from reproq_prefork.unix import kill, proc
from reproq_prefork.unix.own_children import OwnChildren

TERM_GRACE_S = 2.0  # between asking a task to end at its deadline, and SIGKILL
CANCEL_GRACE_S = 5.0  # the same for a cancelled task
KILL_TIMEOUT_S = 5.0
READ_BYTES = 65_536
READS_AT_ONCE = 16
EXCHANGES_BEFORE_A_LOOK = 8


@dataclass(frozen=True, slots=True)
class ProcessExit:
    """How the process ended. `stop`: why it was asked to end, or killed; None: it ended by itself."""

    status: int  # below 0: minus the number of the signal that ended it
    cpu_s: float
    peak_rss_kib: int
    stop: Stop | None

    def usage(self, *, output: str | None = None) -> Usage:
        return Usage(proc.describe_exit(self.status), self.cpu_s, self.peak_rss_kib, output)


class Conversation:
    """A context manager: when it exits, no process of the task exists any more.

    The task's process is a child of this one, which must be a subreaper (`proc.adopt_orphans`). Raises
    TaskWillNotDie.
    """

    def __init__(
        self,
        watch: Watch,
        *,
        outputs: Sequence[tuple[int, Tail]],
        stdin: int | None = None,
        payload: bytes = b"",
        children: OwnChildren | None = None,
    ) -> None:
        """`outputs` are read into their tails. `payload` is written to `stdin`, which is closed after that, or on
        exit. `children`: those of this process that are not the task's; None: all are.
        """
        self._children = children
        self._watch = watch
        self._tails = dict(outputs)  # of the outputs that have not ended
        self._stdin = stdin
        self._payload = memoryview(payload)
        self._pid = 0
        self._exit: tuple[int, float, int] | None = None
        # Not epoll, which needs a descriptor: the process may already run, so nothing here may fail.
        self._poll = select.poll()
        for fd in self._tails:
            os.set_blocking(fd, False)
            self._poll.register(fd, select.POLLIN)
        if stdin is not None:
            os.set_blocking(stdin, False)
            self._poll.register(stdin, select.POLLOUT)
        for fd in watch.fds:
            self._poll.register(fd, select.POLLIN)
        self._first_wait_s = watch.wait_s()

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_exception: object) -> None:
        # Whatever happened, no process of the task may live longer than this.
        gone = self._kill()
        if self._stdin is not None:
            os.close(self._stdin)
        if not gone:
            raise self._will_not_die()

    def hold(self, pid: int, ask: Callable[[Stop], None]) -> ProcessExit:
        """Exchange bytes until the process has ended, by itself or because the watch wants it.

        At a deadline or a cancel, `ask` asks it to end, and it is killed if it still exists after a grace period.
        For any other reason to stop it is killed at once.
        """
        self._pid = pid
        stop = self._until_its_end(ask)
        # Before the pipes are emptied: a descendant that holds their other end could make this wait.
        self._kill()
        if self._exit is None:
            raise self._will_not_die()
        for fd in tuple(self._tails):
            self._read(fd)
        return ProcessExit(*self._exit, stop)

    def _until_its_end(self, ask: Callable[[Stop], None]) -> Stop | None:
        asked: Stop | None = None
        kill_at: float | None = None
        wait_s = self._first_wait_s
        while True:
            self._exchange(max(0.0, wait_s))
            if self._exit is not None:
                return asked
            self._watch.tend()
            stop = self._watch.look()
            if stop is Stop.QUIT or stop is Stop.LEASE:
                return stop
            if stop is not None and asked is None:
                asked = stop
                kill_at = time.monotonic() + (CANCEL_GRACE_S if stop is Stop.CANCEL else TERM_GRACE_S)
                ask(stop)
            wait_s = self._watch.wait_s()
            if kill_at is not None:
                wait_s = min(wait_s, kill_at - time.monotonic())
                if wait_s <= 0 and time.monotonic() >= kill_at:
                    return asked

    def _reaped(self) -> bool:
        """Whether the process has ended. Only wait4 reports what it used, so wait4 takes its status."""
        if self._exit is None:
            self._reap(self._pid)
        return self._exit is not None

    def _reap(self, pid: int) -> None:
        with contextlib.suppress(ChildProcessError):
            reaped, wait_status, used = os.wait4(pid, os.WNOHANG)
            if reaped == self._pid:
                status = os.waitstatus_to_exitcode(wait_status)
                self._exit = (status, used.ru_utime + used.ru_stime, used.ru_maxrss)

    def _kill(self) -> bool:
        end_others = kill.kill_own_descendants if self._children is None else self._children.end_others
        return end_others(within_s=KILL_TIMEOUT_S, reap=self._reap)

    def _will_not_die(self) -> TaskWillNotDie:
        return TaskWillNotDie(f"process {self._pid} or one it started is still there after SIGKILL")

    def _exchange(self, wait_s: float) -> None:
        """Exchange bytes until the watch must look again: it has news, the process has ended, `wait_s` is over, or
        a flood of output has taken long enough.
        """
        look_at = time.monotonic() + wait_s
        for _ in range(EXCHANGES_BEFORE_A_LOOK):
            ready = self._poll.poll(wait_s * 1000)
            news = not ready
            for fd, _events in ready:
                if fd in self._tails:
                    self._read(fd)
                elif fd == self._stdin:
                    self._write_payload(fd)
                else:
                    news = True
            wait_s = look_at - time.monotonic()
            if self._reaped() or news or wait_s <= 0:
                return

    def _read(self, fd: int) -> None:
        """Read what has arrived, at most `READS_AT_ONCE` chunks, so that a flood does not delay the watch."""
        tail = self._tails[fd]
        try:
            for _ in range(READS_AT_ONCE):
                chunk = os.read(fd, READ_BYTES)
                if not chunk:
                    self._poll.unregister(fd)
                    del self._tails[fd]
                    return
                tail.feed(chunk)
        except BlockingIOError:
            return

    def _write_payload(self, stdin: int) -> None:
        try:
            written = os.write(stdin, self._payload[:READ_BYTES])
        except BlockingIOError:
            return
        except BrokenPipeError:
            written = len(self._payload)  # the task does not read its payload, which it may do
        self._payload = self._payload[written:]
        if not self._payload:
            self._poll.unregister(stdin)
            os.close(stdin)
            self._stdin = None
