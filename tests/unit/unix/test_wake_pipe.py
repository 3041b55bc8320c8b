from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from reproq_prefork.unix.wake_pipe import Sleep, WakePipe
from tests.support.unix.children import exit_status_of, forked
from tests.support.waiting import wait_until


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


def sleeping(pipe: WakePipe, count: int) -> list[threading.Thread]:
    """So many who each sleep once, and take nothing; they are asleep."""
    sleepers = [threading.Thread(target=Sleep(pipe, ()).wait, args=(30,), daemon=True) for _ in range(count)]
    for sleeper in sleepers:
        sleeper.start()
    wait_until(lambda: all(map(is_asleep, sleepers)), 10, "all to be asleep")
    return sleepers


def is_asleep(thread: threading.Thread) -> bool:
    """In a system call whose first argument is a descriptor, and not the address of a lock."""
    call = Path(f"/proc/self/task/{thread.native_id}/syscall").read_text().split()
    return call[0] != "running" and int(call[1], 16) < 1_000


def awake(sleepers: list[threading.Thread]) -> int:
    return sum(not sleeper.is_alive() for sleeper in sleepers)


def test_a_wake_wakes_one_of_all_sleeping_workers(pipe: WakePipe) -> None:
    sleepers = sleeping(pipe, 5)
    for woken in (1, 2, 3):
        pipe.wake(1, at_most_waiting=5)
        wait_until(lambda: awake(sleepers) == woken, 10, f"{woken} to be awake")  # noqa: B023
    still_asleep = next(sleeper for sleeper in sleepers if sleeper.is_alive())
    still_asleep.join(0.2)
    assert awake(sleepers) == 3
    pipe.wake(5, at_most_waiting=5)
    wait_until(lambda: awake(sleepers) == 5, 10, "all to be awake")


def test_a_wake_that_is_passed_on_wakes_another(pipe: WakePipe) -> None:
    sleepers = sleeping(pipe, 2)
    pipe.wake(1, at_most_waiting=2)
    wait_until(lambda: awake(sleepers) == 1, 10, "one to be awake")
    pipe.pass_on()
    wait_until(lambda: awake(sleepers) == 2, 10, "both to be awake")
    assert taken(pipe) == 1
    pipe.pass_on()
    assert taken(pipe) == 0


def test_a_sleep_ends_when_another_descriptor_is_readable(pipe: WakePipe) -> None:
    reader, writer = os.pipe()
    try:
        sleep = Sleep(pipe, (reader,))
        os.write(writer, b"!")
        sleep.wait(30)
        assert not pipe.take()
    finally:
        os.close(reader)
        os.close(writer)
