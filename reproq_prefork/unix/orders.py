"""What a child was told to do: by signals, or by its master's death."""

from __future__ import annotations

import select
import signal

from reproq_prefork.unix.signals import SignalInbox


class Orders:
    """Orders only grow: drain (finish what runs, take nothing new), then quit (stop at once).

    The master holds the other end of `life_fd`: it reads as closed when the master is dead, and a child whose
    master is dead quits, since nobody would watch it.
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
        """Readable when there may be news; the life pipe drops out once it has told its only news."""
        return (self._inbox.fileno(),) if self.master_is_gone else (self._inbox.fileno(), self._life_fd)

    def read(self) -> None:
        for signum in self._inbox.take():
            if signum == signal.SIGTERM:
                self.drain = True
            elif signum == signal.SIGQUIT:
                self.drain = self.quit = True
        if not self.master_is_gone and self._life.poll(0):
            self.drain = self.quit = self.master_is_gone = True
