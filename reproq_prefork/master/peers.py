"""The master's side of its templates: it forks them, sends them requests, and reads their messages."""

from __future__ import annotations

import signal
from collections.abc import Callable, Collection, Iterator

from reproq_prefork.fleet.events import Event, Exited, Forked, ForkFailed
from reproq_prefork.fleet.state import Role
from reproq_prefork.model.messages import WorkerExpected, WorkerPost
from reproq_prefork.unix import proc
from reproq_prefork.unix.channel import Channel, PeerGone
from reproq_prefork.unix.fork import Child, fork


class Templates:
    """The templates, by generation. Nothing here waits for a template."""

    def __init__(self) -> None:
        self._children: dict[int, Child] = {}
        self._channels: dict[int, Channel] = {}

    @property
    def pids(self) -> list[int]:
        return [child.pid for child in self._children.values()]

    @property
    def fds(self) -> list[int]:
        """Descriptors that are readable when a template has sent a message."""
        return [channel.fileno() for channel in self._channels.values()]

    def fork(self, generation: int, program: Callable[[Channel], int], *, keep_fds: Collection[int]) -> Event:
        try:
            ours, theirs = Channel.pair()
        except OSError as error:
            return ForkFailed(Role.TEMPLATE, generation, error.strerror or str(error))
        try:
            child = fork(
                lambda: program(theirs),
                keep_fds={*keep_fds, theirs.fileno()},
                parent_death_signal=signal.SIGKILL,  # it holds nothing
            )
        except OSError as error:
            ours.close()
            return ForkFailed(Role.TEMPLATE, generation, error.strerror or str(error))
        finally:
            theirs.close()
        self._children[generation] = child
        self._channels[generation] = ours
        return Forked(Role.TEMPLATE, generation, child.pid)

    def request(self, generation: int, post: WorkerPost) -> None:
        self._channels[generation].send(post)

    def expect(self, generation: int, pid: int) -> None:
        """Allow the worker with this pid to become a child of this process."""
        self._channels[generation].send(WorkerExpected(pid))

    def hear(self) -> Iterator[tuple[int, object]]:
        """The messages that have arrived, each with its generation."""
        for generation in list(self._channels):
            self._channels[generation].flush()
            yield from self._heard_of(generation)

    def reap(self) -> Iterator[tuple[int, object]]:
        """The last messages of each dead template, followed by an Exited."""
        for generation, child in list(self._children.items()):
            if child.exitcode is not None:
                yield from self._heard_of(generation)
                del self._children[generation]
                self._channels.pop(generation).close()
                yield generation, Exited(Role.TEMPLATE, generation, proc.describe_exit(child.exitcode))

    def _heard_of(self, generation: int) -> Iterator[tuple[int, object]]:
        try:
            for message in self._channels[generation].receive():
                yield generation, message
        except PeerGone:
            pass  # its exit will be seen
