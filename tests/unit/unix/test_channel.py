from __future__ import annotations

import select
from collections.abc import Iterator

import pytest

from reproq_prefork.model.outcome import FailureKind
from reproq_prefork.model.run import LostWorker
from reproq_prefork.unix.channel import MAX_MESSAGE_BYTES, Channel, PeerGone
from tests.support.unix.children import exit_status_of, forked
from tests.support.waiting import wait_until


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = Channel.pair()
    yield ours, theirs
    ours.close()
    theirs.close()


def test_messages_arrive_whole_and_in_order(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    lost = LostWorker("w", (7, 1), False, True, FailureKind.SHUTDOWN, "the worker ended")
    sent = [lost, "x" * 1_000, 3, None]
    for message in sent:
        ours.send(message)
    assert select.select([theirs], [], [], 0)[0]
    assert theirs.receive() == sent
    assert theirs.receive() == []


def test_a_peer_that_does_not_read_blocks_nobody_and_gets_all_later(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    for number in range(3_000):
        ours.send((number, "x" * 500))
    received: list[object] = []
    while len(received) < 3_000:
        arrived = theirs.receive()
        assert arrived, "what was kept is sent by flush"
        received += arrived
        ours.flush()
    assert [number for number, _ in received] == list(range(3_000))  # type: ignore[misc, has-type]


def test_the_two_directions_are_independent(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    ours.send("there")
    theirs.send("back")
    assert (ours.receive(), theirs.receive()) == (["back"], ["there"])


def test_a_closed_peer_is_noticed_after_all_messages_are_read(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    theirs.send(1)
    theirs.send(2)
    theirs.close()
    assert ours.receive() == [1, 2]
    for _ in range(2):
        with pytest.raises(PeerGone):
            ours.receive()


def test_the_last_messages_of_a_peer_with_unread_messages_are_read(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    ours.send("never read")
    theirs.send("last words")
    theirs.close()
    assert ours.receive() == ["last words"]
    with pytest.raises(PeerGone):
        ours.receive()


def test_sending_to_a_closed_peer_is_not_an_error(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    theirs.close()
    for _ in range(3):
        ours.send("hello")


def test_a_message_of_the_largest_size_arrives_and_a_larger_one_is_refused(
    ends: tuple[Channel, Channel],
) -> None:
    ours, theirs = ends
    large = b"x" * (MAX_MESSAGE_BYTES - 100)
    ours.send(large)
    assert theirs.receive() == [large]
    with pytest.raises(ValueError, match="would be cut"):
        ours.send(b"x" * MAX_MESSAGE_BYTES)
    assert theirs.receive() == []


def test_a_dead_child_is_a_closed_peer() -> None:
    ours, theirs = Channel.pair()

    def speak_and_die() -> int:
        theirs.send("from the child")
        return 0

    with forked(speak_and_die, keep_fds={theirs.fileno()}) as child:
        theirs.close()
        assert exit_status_of(child) == 0
        assert wait_until(ours.receive, 5, "the child's word") == ["from the child"]
        with pytest.raises(PeerGone):
            ours.receive()
    ours.close()
