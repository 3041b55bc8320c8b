"""Notes Ctrl-C and SIGTERM when they come, and acts on them between two steps, so that no step is cut in half."""

from __future__ import annotations

import select
import signal
import time
from typing import NoReturn

from reproq_prefork.unix.signals import SignalInbox

SIGNAL_EXIT_BASE = 128  # a shell adds it to the number of the signal that ended a program


class Interruption:
    """Takes the signals that ask a program to end. Only the first one has an effect."""

    def __init__(self) -> None:
        signums = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup ignores it
            signums.append(signal.SIGHUP)
        self._inbox = SignalInbox(signums)

    def wait(self, seconds: float = 0.0) -> None:
        """Wait so long. Once a signal has come, raise the exception that ends the program in the ordinary way."""
        until = time.monotonic() + seconds
        while True:
            ready, _, _ = select.select([self._inbox], [], [], max(0.0, until - time.monotonic()))
            for signum in self._inbox.take() if ready else ():
                _end(signum)
            if time.monotonic() >= until:
                return


def _end(signum: int) -> NoReturn:
    if signum == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(SIGNAL_EXIT_BASE + signum)
