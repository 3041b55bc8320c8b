"""What a child was ordered to do: by signals, or by the death of its master."""

from __future__ import annotations

import select
import signal

from reproq_prefork.unix.signals import SignalInbox


class Orders:
    """Orders only become stronger: first drain (finish what runs, claim nothing), then quit (stop at once).

    The master holds the other end of `life_fd`, which reads as closed when the master is dead. A child whose
    master is dead quits, because nobody would watch it.
    """

    def __init__(self, inbox: SignalInbox, life_fd: int) -> None:
        self._inbox = inbox
        self._life_fd = life_fd
        self._life = select.poll()
        self._life.register(life_fd, select.POLLIN)
        self.drain = False
        self.quit = False
        self.master_is_gone = False

    @property
    def fds(self) -> tuple[int, ...]:
        """Descriptors that are readable when there may be news. The life pipe is left out after it was closed."""
        return (self._inbox.fileno(),) if self.master_is_gone else (self._inbox.fileno(), self._life_fd)

    def read(self) -> None:
        for signum in self._inbox.take():
            if signum == signal.SIGTERM:
                self.drain = True
            elif signum == signal.SIGQUIT:
                self.drain = self.quit = True
        if not self.master_is_gone and self._life.poll(0):
            self.drain = self.quit = self.master_is_gone = True
