"""Messages between the master and one of its children. Each arrives whole or not at all. No side ever blocks."""

from __future__ import annotations

import errno
import pickle
import socket
from collections import deque

from reproq_prefork.errors import ReproqError

MAX_MESSAGE_BYTES = 65_536
SHORT_OF_MEMORY = frozenset({errno.ENOBUFS, errno.ENOMEM})  # a temporary state


class PeerGone(ReproqError):
    """The process at the other end is dead."""


class Channel:
    """One end. Pickle is safe here: both ends are forks of one process, and their socket has no name."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._unsent: deque[bytes] = deque()

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        # SEQPACKET keeps messages apart.
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), cls(theirs)

    def fileno(self) -> int:
        return self._end.fileno()

    def close(self) -> None:
        self._end.close()

    def send(self, message: object) -> None:
        """Send the message. While the other side does not read, keep it for `flush`."""
        packet = pickle.dumps(message)
        if len(packet) > MAX_MESSAGE_BYTES:
            raise ValueError(f"a message of {len(packet)} bytes would be cut to {MAX_MESSAGE_BYTES}")
        self._unsent.append(packet)
        self.flush()

    @property
    def all_sent(self) -> bool:
        return not self._unsent

    def flush(self) -> None:
        while self._unsent:
            try:
                self._end.send(self._unsent[0])
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in SHORT_OF_MEMORY:
                    self._unsent.clear()  # the other side is dead; who waits for its answer sees its exit
                return
            self._unsent.popleft()

    def receive(self) -> list[object]:
        """The messages that have arrived. Does not wait. Raises `PeerGone` if all are read and the other end is
        closed.
        """
        messages: list[object] = []
        while True:
            try:
                packet = self._end.recv(MAX_MESSAGE_BYTES)
            except BlockingIOError:
                return messages
            except ConnectionResetError:
                continue  # comes once, before its own messages: it died without reading ours
            if not packet:
                if messages:
                    return messages
                raise PeerGone("the process at the other end is dead")
            messages.append(pickle.loads(packet))  # noqa: S301 (see the class)
