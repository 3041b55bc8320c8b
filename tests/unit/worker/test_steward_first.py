"""A worker lets its steward connect first, unless that is dead, hangs, or the worker is told to stop."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from reproq_prefork.unix.panel import WorkerPanel
from reproq_prefork.unix.scoreboard import Scoreboard, StewardRecord, WorkerRecord
from reproq_prefork.worker import steward_first
from reproq_prefork.worker.steward_first import STALE_S, await_steward
from tests.support.fakes.orders import ScriptedOrders

PLACE = 1


class Host:
    """A clock that moves while the worker waits; `each_time` is called then with the time waited so far."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.board = Scoreboard(slots=1, stewards=2)
        self.panel = WorkerPanel(self.board, 0, WorkerRecord(incarnation=1))
        self.orders = ScriptedOrders()
        self.waited_s = 0.0
        self.each_time: Callable[[float], None] = lambda waited_s: None
        monkeypatch.setattr(steward_first, "boottime_ns", self.now_ns)
        monkeypatch.setattr(steward_first, "wait_readable", self._wait)

    def now_ns(self) -> int:
        return 10**12 + int(self.waited_s * 1e9)

    def _wait(self, _fds: object, seconds: float) -> None:
        self.waited_s += seconds
        self.each_time(self.waited_s)

    def show_steward(self, *, connected: bool, ahead_s: float = 0.0) -> None:
        at_ns = self.now_ns() + int(ahead_s * 1e9)
        self.board.write_steward(PLACE, StewardRecord(7, at_ns, connected))

    def await_steward(self) -> float:
        await_steward(self.board, PLACE, self.panel, self.orders)
        return self.waited_s


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(monkeypatch)


def test_a_worker_does_not_wait_for_a_connected_steward(host: Host) -> None:
    host.show_steward(connected=True)
    assert host.await_steward() == 0


def test_a_worker_waits_for_as_long_as_its_steward_tries(host: Host) -> None:
    host.each_time = lambda waited_s: host.show_steward(connected=waited_s > 60)
    assert 60 < host.await_steward() < 61


def test_a_steward_that_looks_up_a_name_is_waited_for(host: Host) -> None:
    host.show_steward(connected=False, ahead_s=30)
    assert 30 + STALE_S < host.await_steward() < 31 + STALE_S


@pytest.mark.parametrize("has_come", [True, False])
def test_a_steward_that_shows_no_life_is_not_waited_for(host: Host, has_come: bool) -> None:
    if has_come:
        host.show_steward(connected=False)
    assert STALE_S < host.await_steward() < STALE_S + 1


def test_a_worker_that_is_told_to_stop_does_not_wait(host: Host) -> None:
    def drain_after_a_second(waited_s: float) -> None:
        host.show_steward(connected=False)
        host.orders.drain = waited_s >= 1

    host.each_time = drain_after_a_second
    assert 1 <= host.await_steward() < 1.5


def test_a_worker_shows_life_while_it_waits(host: Host) -> None:
    before = host.panel.record.seen_ns
    host.each_time = lambda waited_s: host.show_steward(connected=waited_s > 1)
    host.await_steward()
    assert host.panel.record.seen_ns > before
