"""What the master starts: its children by kind, and what each of them is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from reproq_prefork.fleet.state import Role
from reproq_prefork.model.identity import ProcessIdentity
from reproq_prefork.model.messages import WorkerPost
from reproq_prefork.settings import Settings
from reproq_prefork.unix.channel import Channel
from reproq_prefork.unix.scoreboard import Scoreboard
from reproq_prefork.unix.wake_pipe import WakePipe

Post = TypeVar("Post")


@dataclass(frozen=True, slots=True)
class Shared:
    """What a master and all its children share."""

    master: ProcessIdentity
    scoreboard: Scoreboard
    wake: WakePipe
    life_fd: int  # reads as closed when the master is dead

    @property
    def fds(self) -> tuple[int, ...]:
        return *self.wake.fds, self.life_fd


@dataclass(frozen=True, slots=True)
class PeerPost:
    """The place of a child that the master talks to."""

    generation: int
    channel: Channel


@dataclass(frozen=True, slots=True)
class Kind(Generic[Post]):
    """`program` runs in a fork, with all signals still blocked. `death_signal` is sent to it when its master dies;
    0: none.
    """

    program: Callable[[Settings, Shared, Post], int]
    death_signal: int


class Programs(Protocol):
    worker: Kind[WorkerPost]
    peers: Mapping[Role, Kind[PeerPost]]  # in the order in which they end with their generation

    def check(self, *, first: bool) -> Settings:
        """Read the settings again and try them, in a fork like the others. Raises ReproqError."""
