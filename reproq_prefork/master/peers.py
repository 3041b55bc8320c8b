"""The children of one role that the master talks to over a channel, such as stewards."""

from __future__ import annotations

from collections.abc import Iterator

from reproq_prefork.fleet.events import Exited, Forked, ForkFailed
from reproq_prefork.fleet.state import Role
from reproq_prefork.master.programs import Kind, PeerPost, Shared
from reproq_prefork.settings import Settings
from reproq_prefork.unix import proc
from reproq_prefork.unix.channel import Channel, PeerGone
from reproq_prefork.unix.fork import Child, fork


class Peers:
    """By generation. Nothing here waits for a peer."""

    def __init__(self, role: Role, kind: Kind[PeerPost], shared: Shared) -> None:
        self._role = role
        self._kind = kind
        self._shared = shared
        self._children: dict[int, tuple[Child, Channel]] = {}

    @property
    def pids(self) -> list[int]:
        return [child.pid for child, _ in self._children.values()]

    @property
    def fds(self) -> list[int]:
        """Descriptors that are readable when a peer has sent a message."""
        return [channel.fileno() for _, channel in self._children.values()]

    def fork(self, generation: int, settings: Settings) -> Forked | ForkFailed:
        try:
            ours, theirs = Channel.pair()
            try:
                child = fork(
                    lambda: self._kind.program(settings, self._shared, PeerPost(generation, theirs)),
                    keep_fds={*self._shared.fds, theirs.fileno()},
                    parent_death_signal=self._kind.death_signal,
                )
            except OSError:
                ours.close()
                raise
            finally:
                theirs.close()
        except OSError as error:
            return ForkFailed(self._role, generation, error.strerror or str(error))
        self._children[generation] = child, ours
        return Forked(self._role, generation, child.pid)

    def send(self, generation: int, message: object) -> None:
        """Send the message. If the peer is gone, nothing happens: its exit will be seen."""
        if generation in self._children:
            _, channel = self._children[generation]
            channel.send(message)

    def hear(self) -> Iterator[tuple[int, object]]:
        """The messages that have arrived, each with its generation."""
        for generation, (_, channel) in list(self._children.items()):
            channel.flush()
            yield from _heard(generation, channel)

    def reap(self) -> Iterator[tuple[int, object]]:
        """The last messages of each dead peer, followed by an Exited."""
        for generation, (child, channel) in list(self._children.items()):
            if child.exitcode is not None:
                yield from _heard(generation, channel)
                del self._children[generation]
                channel.close()
                yield generation, Exited(self._role, generation, proc.describe_exit(child.exitcode))


def _heard(generation: int, channel: Channel) -> Iterator[tuple[int, object]]:
    try:
        for message in channel.receive():
            yield generation, message
    except PeerGone:
        pass  # its exit will be seen
