"""What the master starts: the programs of its children, and what each of them is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from reproq_prefork.model.messages import (
    WorkerPost,
)
from reproq_prefork.settings import Settings
from reproq_prefork.unix.channel import Channel
from reproq_prefork.unix.scoreboard import Scoreboard
from reproq_prefork.unix.wake_pipe import WakePipe


@dataclass(frozen=True, slots=True)
class StewardPost:
    index: int
    channel: Channel
    life_fd: int


class Programs(Protocol):
    """The programs of the children. Each runs in a fork, with all signals still blocked."""

    def check(self, *, first: bool) -> Settings:
        """Read the settings again and try them. Raises ReproqError."""

    def work(self, settings: Settings, post: WorkerPost, scoreboard: Scoreboard, wake: WakePipe) -> int: ...

    def attend(
        self, settings: Settings, post: StewardPost, scoreboard: Scoreboard, wake: WakePipe
    ) -> int: ...

    def prepare(
        self, settings: Settings, channel: Channel, scoreboard: Scoreboard, wake: WakePipe, life_fd: int
    ) -> int:
        """Be a template, which forks workers that run `work`."""
