from __future__ import annotations

import os
import select
from collections.abc import Iterator

import pytest

from reproq_prefork.wakeup import WakePipe
from tests.children import exit_status_of, forked


@pytest.fixture
def pipe() -> Iterator[WakePipe]:
    pipe = WakePipe()
    yield pipe
    for fd in pipe.fds:
        os.close(fd)


def taken(pipe: WakePipe) -> int:
    wakes = 0
    while pipe.take():
        wakes += 1
    return wakes


def test_a_wake_is_taken_by_one_worker(pipe: WakePipe) -> None:
    assert not pipe.take()
    pipe.wake(1, at_most_waiting=4)
    assert select.select([pipe.reader], [], [], 0)[0]
    assert pipe.take()
    assert not pipe.take()


def test_wakes_do_not_pile_up_while_all_workers_are_busy(pipe: WakePipe) -> None:
    for _ in range(1_000):
        pipe.wake(3, at_most_waiting=4)
    assert taken(pipe) == 4


def test_wakes_not_taken_yet_count(pipe: WakePipe) -> None:
    pipe.wake(3, at_most_waiting=4)
    pipe.take()
    pipe.wake(10, at_most_waiting=4)
    assert taken(pipe) == 4
    pipe.wake(1, at_most_waiting=0)
    pipe.wake(-1, at_most_waiting=4)
    assert taken(pipe) == 0


def test_a_full_pipe_blocks_nobody(pipe: WakePipe) -> None:
    for _ in range(100):
        pipe.wake(10_000, at_most_waiting=10_000_000)
    assert taken(pipe) > 0


def test_many_takers_get_each_wake_once(pipe: WakePipe) -> None:
    def take_some() -> int:
        mine = 0
        for _ in range(2_000):
            mine += pipe.take()
        return mine

    pipe.wake(60, at_most_waiting=60)
    with (
        forked(take_some, keep_fds=pipe.fds) as first,
        forked(take_some, keep_fds=pipe.fds) as second,
        forked(take_some, keep_fds=pipe.fds) as third,
    ):
        assert sum(map(exit_status_of, (first, second, third))) == 60
