"""Signals as data to read. A handler does nothing; the loop that reads acts.

With `signal.set_wakeup_fd` the interpreter writes the number of each signal to a pipe. The only `select` of the
process waits for this pipe too (gunicorn took years to get there: its #3004, #3198, #2816).
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
import select
import signal
from collections.abc import Callable, Collection, Iterable
from types import FrameType
from typing import Any

# Signals that a person, a service manager or a container engine sends to the master.
MASTERS_OWN = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGUSR1,
    signal.SIGUSR2,
)

# A steward sends it to a worker: one of its runs may have been cancelled, so it must look at the scoreboard.
CANCEL_SIGNAL = signal.SIGUSR1

# The functions that `signal` wraps. The wrapper makes an enum of each number and handler that it returns: 62 for
# one mask, several times in each task.
change_mask: Callable[[int, Iterable[int]], set[int]] = _signal.pthread_sigmask
handler_of: Callable[[int], Any] = _signal.getsignal
_raw_signal: Callable[[int, Any], Any] = _signal.signal

_ALL: frozenset[int] = frozenset(_signal.valid_signals())
_SETTABLE = tuple(sorted(_ALL - {signal.SIGKILL, signal.SIGSTOP}))


class SignalInbox:
    """Receives `signums` for this process and ignores `ignored`. When both are set up, it unblocks all signals."""

    def __init__(self, signums: Collection[int], *, ignored: Collection[int] = ()) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._handlers = dict.fromkeys(signums, _note) | dict.fromkeys(ignored, signal.SIG_IGN)
        self.restore()

    def restore(self) -> None:
        """Set everything up again, after user code that may have changed it.

        A SIGCHLD that only this process can have changed is its default again: where it is ignored, the kernel
        reaps the children, and nobody learns how they ended.
        """
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for signum, handler in ({signal.SIGCHLD: signal.SIG_DFL} | self._handlers).items():
            signal.signal(signum, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def fileno(self) -> int:
        return self._reader

    def take(self) -> list[int]:
        """The signals that came since the last call, in order. Does not wait."""
        try:
            return list(os.read(self._reader, 4096))
        except BlockingIOError:
            return []


def wait_readable(fds: Iterable[int], timeout_s: float | None) -> None:
    """Sleep until one of `fds` can be read, or for `timeout_s`; None: without limit.

    If a `SignalInbox` is one of `fds`, a signal ends the sleep.
    """
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    poll.poll(None if timeout_s is None else timeout_s * 1000)


def pause(seconds: float) -> None:
    """Sleep. `time.sleep` waits for a moment, which fails under a faked clock. This waits for a duration."""
    select.select((), (), (), seconds)


def _note(_signum: int, _frame: FrameType | None) -> None:
    """Do nothing: the signal is already in the wakeup pipe."""


def block_all() -> Collection[int]:
    """Block every signal of this thread. Returns the previous mask, for `set_mask`."""
    return change_mask(signal.SIG_BLOCK, _ALL)


def set_mask(signums: Iterable[int]) -> None:
    change_mask(signal.SIG_SETMASK, signums)


def set_handler(signum: int, handler: Callable[[int, FrameType | None], None]) -> None:
    _raw_signal(signum, handler)


def reset_for_exec() -> None:
    """Set default handlers and an empty mask, for a process that becomes another program.

    exec resets signals that are handled, but keeps ignored ones ignored, and keeps the mask.
    """
    _reset_all()
    set_mask(())


def reset_to_new_interpreter() -> None:
    """Set the handlers with which Python starts, for code that expects them. The mask does not change."""
    _reset_all()
    _raw_signal(signal.SIGPIPE, _signal.SIG_IGN)
    _raw_signal(signal.SIGXFSZ, _signal.SIG_IGN)
    _raw_signal(signal.SIGINT, signal.default_int_handler)


def _reset_all() -> None:
    for signum in _SETTABLE:
        try:  # noqa: SIM105 - a context manager for each would cost what the raw call saves
            _raw_signal(signum, _signal.SIG_DFL)
        except (OSError, ValueError):  # some belong to the C library
            pass
