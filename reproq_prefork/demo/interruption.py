"""Ctrl-C and SIGTERM, noted when they come and acted upon between two steps, so that no step is cut in half."""

from __future__ import annotations

import select
import signal
import time
from typing import NoReturn

from reproq_prefork.unix.signals import SignalInbox

SIGNAL_EXIT_BASE = 128  # as a shell reports a program that a signal ended


class Interruption:
    """Takes the signals that ask a program to end; all but the first change nothing."""

    def __init__(self) -> None:
        signums = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
            signums.append(signal.SIGHUP)
        self._inbox = SignalInbox(signums)

    def wait(self, seconds: float = 0.0) -> None:
        """Wait so long; once a signal has come, raise what ends the program in the ordinary way."""
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
