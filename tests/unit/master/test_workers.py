"""The workers as the master knows them: it forks them, or a template does."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Collection, Iterator
from typing import cast

import pytest

from reproq_prefork.fleet.events import Forked, ForkFailed, WorkerExited
from reproq_prefork.fleet.state import Role
from reproq_prefork.master import workers as workers_module
from reproq_prefork.master.programs import Kind, Shared
from reproq_prefork.master.workers import Workers
from reproq_prefork.model.messages import WorkerPost
from reproq_prefork.settings import Settings
from reproq_prefork.unix import proc
from reproq_prefork.unix.fork import Child
from reproq_prefork.unix.scoreboard import Scoreboard, WorkerRecord, WorkerState
from reproq_prefork.unix.wake_pipe import WakePipe
from tests.support.fakes.settings import resolved

SETTINGS = resolved().settings
POST = WorkerPost(generation=7, slot=1, incarnation=5, worker_id="host/1-abc-5")


class DeadChild:
    def __init__(self, pid: int, exitcode: int | None) -> None:
        self.pid = pid
        self.exitcode = exitcode


def dead(exitcode: int | None = 1) -> Child:
    return cast(Child, DeadChild(100, exitcode))


@pytest.fixture
def shared() -> Iterator[Shared]:
    shared = Shared(proc.own_identity(), Scoreboard(slots=2, stewards=2), WakePipe(), os.dup(0))
    yield shared
    for fd in shared.fds:
        os.close(fd)


@pytest.fixture
def workers(shared: Shared) -> Workers:
    return Workers(Kind(work, signal.SIGUSR2), shared)


def work(settings: Settings, shared: Shared, post: WorkerPost) -> int:
    assert (settings, post) == (SETTINGS, POST)
    return 3


def test_a_worker_is_forked_with_what_all_share(
    shared: Shared, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fork(program: Callable[[], int], *, keep_fds: Collection[int], parent_death_signal: int) -> Child:
        assert (program(), set(keep_fds), parent_death_signal) == (3, set(shared.fds), signal.SIGUSR2)
        return dead(None)

    monkeypatch.setattr(workers_module, "fork", fork)
    assert workers.fork(POST, SETTINGS) == Forked(Role.WORKER, 7, 100, slot=1)
    assert workers.pids == [100]
    assert list(workers.reap()) == []


def test_a_fork_that_fails_is_reported_with_its_slot(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fork(*_: object, **__: object) -> Child:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(workers_module, "fork", fork)
    reason = "Resource temporarily unavailable"
    assert workers.fork(POST, SETTINGS) == ForkFailed(Role.WORKER, 7, reason, slot=1)
    assert workers.pids == []


def test_the_exit_of_a_worker_says_what_it_was_at(shared: Shared, workers: Workers) -> None:
    record = WorkerRecord(incarnation=5, state=WorkerState.BUSY, run_id=3, attempt=2, lease_end_ns=9)
    shared.scoreboard.write_worker(1, record)
    assert workers.know(POST, dead(-9)) == Forked(Role.WORKER, 7, 100, slot=1)
    (exited,) = workers.reap()
    assert exited == WorkerExited(
        slot=1,
        worker_id="host/1-abc-5",
        status=-9,
        how=proc.describe_exit(-9),
        left_in_order=False,
        started=record.started_run,
        torn=False,
        registered=True,
    )
    assert (workers.pids, list(workers.reap())) == ([], [])


def test_a_worker_that_died_before_it_wrote_anything_is_not_taken_for_the_one_before(
    shared: Shared, workers: Workers
) -> None:
    before = WorkerRecord(incarnation=4, state=WorkerState.STOPPED, run_id=3, attempt=2, lease_end_ns=9)
    shared.scoreboard.write_worker(1, before)
    workers.know(POST, dead())
    (exited,) = workers.reap()
    assert (exited.left_in_order, exited.started, exited.registered) == (False, None, False)
