"""The children that the master talks to: forked, heard, reaped. The forks are fakes, the channels are not."""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import pytest

from reproq_prefork.fleet.events import Exited, Forked, ForkFailed
from reproq_prefork.fleet.state import Role
from reproq_prefork.master import peers as peers_module
from reproq_prefork.master.peers import Peers
from reproq_prefork.master.programs import Kind, PeerPost, Shared
from reproq_prefork.settings import Settings
from reproq_prefork.unix import proc
from reproq_prefork.unix.channel import Channel
from reproq_prefork.unix.scoreboard import Scoreboard
from reproq_prefork.unix.wake_pipe import WakePipe
from tests.support.fakes.settings import resolved
from tests.support.unix.children import open_fds

SETTINGS = resolved().settings
ROLES = pytest.mark.parametrize("role", [Role.STEWARD, Role.TEMPLATE])


@dataclass
class FakeChild:
    pid: int
    keep_fds: Collection[int]
    parent_death_signal: int
    exitcode: int | None = None


class Host:
    """Forks children that are not there: each program runs at once, in this process. `fork_fails`: what a fork
    raises instead.
    """

    def __init__(self) -> None:
        self.shared = Shared(proc.own_identity(), Scoreboard(slots=2, stewards=2), WakePipe(), os.dup(0))
        self.fork_fails: OSError | None = None
        self.children: list[FakeChild] = []
        self.posts: list[PeerPost] = []
        self._made: list[Peers] = []
        self.ends: list[Channel] = []  # of the children that live

    def peers(self, role: Role) -> Peers:
        self._made.append(Peers(role, Kind(self._program, signal.SIGUSR2), self.shared))
        return self._made[-1]

    def fork(
        self, program: Callable[[], int], *, keep_fds: Collection[int], parent_death_signal: int
    ) -> FakeChild:
        if self.fork_fails is not None:
            raise self.fork_fails
        self.children.append(FakeChild(100 + len(self.children), keep_fds, parent_death_signal))
        program()
        return self.children[-1]

    def _program(self, settings: Settings, shared: Shared, post: PeerPost) -> int:
        assert (settings, shared) == (SETTINGS, self.shared)
        self.posts.append(post)
        # The master closes its copy of this end, as after a real fork.
        self.ends.append(Channel(socket.socket(fileno=os.dup(post.channel.fileno()))))
        for message in ("first", "last"):
            post.channel.send((post.generation, message))
        return 0

    def let_all_die(self, status: int = 2) -> None:
        while self.ends:
            self.ends.pop().close()
        for child in self.children:
            child.exitcode = status

    def close(self) -> None:
        self.let_all_die()
        for peers in self._made:
            list(peers.reap())
        for fd in self.shared.fds:
            os.close(fd)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    host = Host()
    monkeypatch.setattr(peers_module, "fork", host.fork)
    yield host
    host.close()


# --- forks ---


@ROLES
def test_a_peer_is_forked_with_what_all_share_and_its_end_of_a_channel(role: Role, host: Host) -> None:
    peers = host.peers(role)
    assert peers.fork(7, SETTINGS) == Forked(role, 7, 100)
    (child,), (post,) = host.children, host.posts
    assert post.generation == 7
    assert child.parent_death_signal == signal.SIGUSR2
    assert set(host.shared.fds) < set(child.keep_fds)
    (theirs,) = set(child.keep_fds) - set(host.shared.fds)
    assert theirs not in open_fds(), "the master keeps its own end only"
    assert (peers.pids, len(peers.fds)) == ([100], 1)
    assert peers.fds[0] not in child.keep_fds


@ROLES
def test_a_fork_that_fails_is_reported_and_leaves_nothing_open(role: Role, host: Host) -> None:
    peers = host.peers(role)
    before = open_fds()
    host.fork_fails = OSError(errno.EAGAIN, "Resource temporarily unavailable")
    assert peers.fork(7, SETTINGS) == ForkFailed(role, 7, "Resource temporarily unavailable")
    host.fork_fails = OSError("no errno")
    assert peers.fork(7, SETTINGS) == ForkFailed(role, 7, "no errno")
    assert open_fds() == before
    assert (peers.pids, peers.fds, list(peers.hear()), list(peers.reap())) == ([], [], [], [])


@ROLES
def test_without_a_channel_there_is_no_fork(role: Role, host: Host) -> None:
    def pair() -> tuple[Channel, Channel]:
        raise OSError(errno.EMFILE, "Too many open files")

    peers = host.peers(role)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Channel, "pair", pair)
        assert peers.fork(7, SETTINGS) == ForkFailed(role, 7, "Too many open files")
    assert (host.children, peers.pids, peers.fds) == ([], [], [])
    assert peers.fork(7, SETTINGS) == Forked(role, 7, 100)


# --- messages ---


def test_each_message_comes_with_its_generation(host: Host) -> None:
    peers = host.peers(Role.STEWARD)
    peers.fork(1, SETTINGS)
    peers.fork(2, SETTINGS)
    assert list(peers.hear()) == [(n, (n, message)) for n in (1, 2) for message in ("first", "last")]
    assert list(peers.hear()) == []
    assert len(host.children) == 2


def test_what_a_busy_peer_did_not_read_is_sent_to_it_later(host: Host) -> None:
    peers = host.peers(Role.TEMPLATE)
    peers.fork(1, SETTINGS)
    sent = [(number, "x" * 500) for number in range(3_000)]
    for message in sent:
        peers.send(1, message)
    received: list[object] = []
    while len(received) < len(sent):
        arrived = host.ends[0].receive()
        assert arrived
        received += arrived
        list(peers.hear())
    assert received == sent


@ROLES
def test_what_a_peer_sent_just_before_its_death_is_heard_before_its_exit(role: Role, host: Host) -> None:
    peers = host.peers(role)
    peers.fork(1, SETTINGS)
    assert list(peers.reap()) == [], "it lives"
    (fd,) = peers.fds
    host.let_all_die(-signal.SIGKILL)
    exited = Exited(role, 1, proc.describe_exit(-signal.SIGKILL))
    assert list(peers.reap()) == [(1, (1, "first")), (1, (1, "last")), (1, exited)]
    assert fd not in open_fds()
    assert (peers.pids, peers.fds, list(peers.reap())) == ([], [], [])


@ROLES
def test_the_death_of_a_peer_between_a_message_and_its_answer_is_seen_by_its_exit(
    role: Role, host: Host
) -> None:
    peers = host.peers(role)
    peers.fork(1, SETTINGS)
    peers.send(1, "it will never read this")
    host.let_all_die()
    peers.send(1, "nor this")
    assert [message for _, message in peers.hear()] == [(1, "first"), (1, "last")]
    assert list(peers.hear()) == []
    assert list(peers.reap()) == [(1, Exited(role, 1, proc.describe_exit(2)))]


@ROLES
def test_a_message_to_a_peer_that_is_gone_does_no_harm(role: Role, host: Host) -> None:
    peers = host.peers(role)
    peers.send(1, "nobody yet")
    peers.fork(1, SETTINGS)
    host.let_all_die()
    list(peers.reap())
    peers.send(1, "nobody any more")
    assert peers.fork(1, SETTINGS) == Forked(role, 1, 101)


def test_a_peer_that_is_forked_while_others_are_reaped_is_not_looked_at_before_the_next_time(
    host: Host,
) -> None:
    """The master decides after each event, and may fork the next peer of the same generation."""
    peers = host.peers(Role.STEWARD)
    peers.fork(1, SETTINGS)
    host.let_all_die()
    seen = []
    for _, message in peers.reap():
        seen.append(message)
        if isinstance(message, Exited):
            peers.fork(1, SETTINGS)
            host.let_all_die()
    assert [type(message) for message in seen] == [tuple, tuple, Exited]
    assert peers.pids == [101]
