from __future__ import annotations

import os
import select
import signal

from reproq_prefork.unix.signals import SignalInbox
from tests.support.unix.children import exit_status_of, forked


def test_signals_are_read_in_the_order_in_which_they_came() -> None:
    def program() -> int:
        inbox = SignalInbox((signal.SIGTERM, signal.SIGUSR1), ignored=(signal.SIGINT,))
        assert inbox.take() == []
        for signum in (signal.SIGUSR1, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            os.kill(os.getpid(), signum)
        assert select.select([inbox], [], [], 0)[0] == [inbox]
        assert inbox.take() == [signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1]
        assert inbox.take() == []
        return 0

    with forked(program) as child:
        assert exit_status_of(child) == 0


def test_a_flood_of_signals_blocks_nobody() -> None:
    def program() -> int:
        inbox = SignalInbox((signal.SIGUSR1,))
        for _ in range(70_000):
            signal.raise_signal(signal.SIGUSR1)
        taken = 0
        while some := inbox.take():
            taken += len(some)
        return 0 if taken > 60_000 else 1

    with forked(program) as child:
        assert exit_status_of(child) == 0
