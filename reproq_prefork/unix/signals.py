"""Signals as something to read. A handler does nothing; the loop that reads acts.

`signal.set_wakeup_fd` has the interpreter write each signal's number to a pipe, which the process' one
`select` waits for beside everything else (gunicorn took years to get there: its #3004, #3198, #2816).
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
import select
import signal
from collections.abc import Callable, Collection, Iterable
from types import FrameType
from typing import Any

# What a person, a service manager or a container engine sends, and means for the master.
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

# A steward's to one of its workers: a run of yours may have been cancelled, look at the scoreboard.
CANCEL_SIGNAL = signal.SIGUSR1

# What `signal` wraps. That makes an enum of each number and handler that comes back: 62 of them for one mask, and
# several times in each task.
change_mask: Callable[[int, Iterable[int]], set[int]] = _signal.pthread_sigmask
handler_of: Callable[[int], Any] = _signal.getsignal
_raw_signal: Callable[[int, Any], Any] = _signal.signal

_ALL: frozenset[int] = frozenset(_signal.valid_signals())
_SETTABLE = tuple(sorted(_ALL - {signal.SIGKILL, signal.SIGSTOP}))


class SignalInbox:
    """Takes `signums` for this process, ignores `ignored`, and unblocks all signals once that is in place."""

    def __init__(self, signums: Collection[int], *, ignored: Collection[int] = ()) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for signum in signums:
            signal.signal(signum, _note)
        for signum in ignored:
            signal.signal(signum, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def fileno(self) -> int:
        return self._reader

    def take(self) -> list[int]:
        """The signals that came since the last call, in order; does not wait."""
        try:
            return list(os.read(self._reader, 4096))
        except BlockingIOError:
            return []


def wait_readable(fds: Iterable[int], timeout_s: float | None) -> None:
    """Sleep until one of `fds` can be read (an inbox among them ends this on a signal), or so many seconds;
    None: for ever.
    """
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    poll.poll(None if timeout_s is None else timeout_s * 1000)


def pause(seconds: float) -> None:
    """Sleep. Unlike `time.sleep` it asks for a span and not for a moment, which fails under a faked clock."""
    select.select((), (), (), seconds)


def _note(_signum: int, _frame: FrameType | None) -> None:
    """The wakeup pipe has it already."""


def block_all() -> Collection[int]:
    """Block every signal of this thread; gives the mask that it had, for `set_mask`."""
    return change_mask(signal.SIG_BLOCK, _ALL)


def set_mask(signums: Iterable[int]) -> None:
    change_mask(signal.SIG_SETMASK, signums)


def set_handler(signum: int, handler: Callable[[int, FrameType | None], None]) -> None:
    _raw_signal(signum, handler)


def reset_for_exec() -> None:
    """Default handlers and an empty mask, for a process about to become another program.

    exec resets what is handled but keeps what is ignored, and keeps the mask.
    """
    _reset_all()
    set_mask(())


def reset_to_new_interpreter() -> None:
    """The handlers with which Python starts, for code that has to find them so. The mask stays as it is."""
    _reset_all()
    _raw_signal(signal.SIGPIPE, _signal.SIG_IGN)
    _raw_signal(signal.SIGXFSZ, _signal.SIG_IGN)
    _raw_signal(signal.SIGINT, signal.default_int_handler)


def _reset_all() -> None:
    for signum in _SETTABLE:
        try:  # noqa: SIM105 - a context for each is what the raw call saves
            _raw_signal(signum, _signal.SIG_DFL)
        except (OSError, ValueError):  # some are the C library's own
            pass
