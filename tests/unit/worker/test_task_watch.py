from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from reproq_prefork.executors.contract import Stop
from reproq_prefork.unix.orders import Orders
from reproq_prefork.unix.panel import WorkerPanel
from reproq_prefork.unix.scoreboard import LeaseRecord, Scoreboard, WorkerRecord, boottime_ns
from reproq_prefork.worker.task_watch import LOOK_INTERVAL_NS, TaskWatch

S = 10**9


class FakeInbox:
    """Signals that a test says have come."""

    def __init__(self) -> None:
        self.came: list[int] = []
        self._reader, self._writer = os.pipe()

    def fileno(self) -> int:
        return self._reader

    def take(self) -> list[int]:
        came, self.came = self.came, []
        return came

    def close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)


class Setting:
    def __init__(self) -> None:
        self.inbox = FakeInbox()
        self.life_reader, self.life_writer = os.pipe()
        self.orders = Orders(self.inbox, self.life_reader)  # type: ignore[arg-type]
        self.board = Scoreboard(slots=1, stewards=1)
        self.panel = WorkerPanel(
            self.board, 0, WorkerRecord(incarnation=3, lease_end_ns=boottime_ns() + 3_600 * S)
        )

    def watch(self, *, deadline_s: float | None = None) -> TaskWatch:
        deadline_ns = 0 if deadline_s is None else boottime_ns() + int(deadline_s * S)
        return TaskWatch(self.panel, self.orders, deadline_ns=deadline_ns)

    def end_master(self) -> None:
        os.close(self.life_writer)
        self.life_writer = -1

    def close(self) -> None:
        self.inbox.close()
        os.close(self.life_reader)
        if self.life_writer >= 0:
            os.close(self.life_writer)


@pytest.fixture
def setting() -> Iterator[Setting]:
    setting = Setting()
    yield setting
    setting.close()


# --- orders ---


def test_orders_are_never_taken_back(setting: Setting) -> None:
    orders = setting.orders
    orders.read()
    assert (orders.drain, orders.quit) == (False, False)
    setting.inbox.came = [signal.SIGCHLD, signal.SIGTERM]
    orders.read()
    assert (orders.drain, orders.quit) == (True, False)
    setting.inbox.came = [signal.SIGQUIT]
    orders.read()
    orders.read()
    assert (orders.drain, orders.quit, orders.master_is_gone) == (True, True, False)


def test_an_order_to_quit_is_also_an_order_to_drain(setting: Setting) -> None:
    setting.inbox.came = [signal.SIGQUIT]
    setting.orders.read()
    assert setting.orders.drain


def test_the_death_of_the_master_is_an_order_to_quit_and_is_seen_once(setting: Setting) -> None:
    assert setting.life_reader in setting.orders.fds
    setting.end_master()
    assert select.select(setting.orders.fds, [], [], 0)[0] == [setting.life_reader]
    setting.orders.read()
    assert (setting.orders.drain, setting.orders.quit, setting.orders.master_is_gone) == (True, True, True)
    assert select.select(setting.orders.fds, [], [], 0)[0] == []


# --- the watch ---


def test_a_task_without_a_reason_to_stop_goes_on(setting: Setting) -> None:
    watch = setting.watch(deadline_s=3_600)
    assert watch.look() is None
    assert 0 < watch.wait_s() <= LOOK_INTERVAL_NS / S


def test_a_task_without_a_deadline_has_none(setting: Setting) -> None:
    watch = setting.watch()
    assert watch.deadline_unix_s is None
    assert watch.look() is None


def test_the_deadline_is_shown_by_the_wall_clock(setting: Setting) -> None:
    shown = setting.watch(deadline_s=100).deadline_unix_s
    assert shown is not None
    assert abs(shown - time.time() - 100) < 10


def test_a_deadline_that_has_passed_ends_the_task(setting: Setting) -> None:
    assert setting.watch(deadline_s=-0.001).look() is Stop.DEADLINE


def test_the_watch_looks_again_in_time_for_the_deadline_and_does_not_spin_after_it(setting: Setting) -> None:
    before = setting.watch(deadline_s=0.1)
    assert before.wait_s() <= 0.1
    after = setting.watch(deadline_s=-0.001)
    assert after.wait_s() == 0, "it has not said so yet"
    assert after.look() is Stop.DEADLINE
    assert after.wait_s() > 0
    assert after.look() is Stop.DEADLINE


def test_a_lease_that_has_ended_ends_the_task(setting: Setting) -> None:
    setting.panel.update(lease_end_ns=boottime_ns() - 1)
    watch = setting.watch()
    assert watch.look() is Stop.LEASE
    setting.board.write_lease(0, 0, LeaseRecord(incarnation=3, lease_end_ns=boottime_ns() + S))
    assert watch.look() is None, "the steward has renewed it"


def test_a_lease_that_a_renewal_did_not_find_ends_the_task(setting: Setting) -> None:
    setting.board.write_lease(0, 0, LeaseRecord(incarnation=3, lost=True))
    assert setting.watch().look() is Stop.LEASE


def test_a_lost_lease_of_an_earlier_fork_does_not_end_the_task(setting: Setting) -> None:
    setting.board.write_lease(0, 0, LeaseRecord(incarnation=2, lost=True))
    assert setting.watch().look() is None


def test_an_order_to_quit_ends_the_task_and_one_to_drain_does_not(setting: Setting) -> None:
    watch = setting.watch()
    setting.inbox.came = [signal.SIGTERM]
    assert watch.look() is None
    setting.inbox.came = [signal.SIGQUIT]
    assert watch.look() is Stop.QUIT


def test_a_cancel_of_the_run_it_watches_ends_the_task(setting: Setting) -> None:
    setting.panel.update(run_id=7, claim=2)
    watch = setting.watch()
    setting.board.update_lease(0, WorkerRecord(incarnation=3), cancel_run_id=7, cancel_claim=2)
    assert watch.look() is Stop.CANCEL


@pytest.mark.parametrize(("incarnation", "run_id", "claim"), [(3, 7, 1), (3, 8, 2), (2, 7, 2), (3, 0, 0)])
def test_a_cancel_of_another_run_claim_or_fork_ends_nothing(
    setting: Setting, incarnation: int, run_id: int, claim: int
) -> None:
    setting.panel.update(run_id=7, claim=2)
    setting.board.update_lease(
        0, WorkerRecord(incarnation=incarnation), cancel_run_id=run_id, cancel_claim=claim
    )
    assert setting.watch().look() is None


def test_a_worker_without_a_run_sees_no_cancel(setting: Setting) -> None:
    setting.board.update_lease(0, WorkerRecord(incarnation=3), lease_end_ns=boottime_ns() + S)
    assert setting.watch().look() is None


def test_the_watch_does_not_spin_after_a_deadline_that_follows_a_cancel(setting: Setting) -> None:
    watch = setting.watch(deadline_s=-0.001)
    cancel(setting)
    assert watch.look() is Stop.CANCEL
    assert watch.wait_s() > 0


def cancel(setting: Setting) -> None:
    setting.panel.update(run_id=7, claim=2)
    setting.board.update_lease(0, WorkerRecord(incarnation=3), cancel_run_id=7, cancel_claim=2)


def end_lease(setting: Setting) -> None:
    setting.panel.update(lease_end_ns=boottime_ns() - 1)


def quit_now(setting: Setting) -> None:
    setting.inbox.came = [signal.SIGQUIT]


@pytest.mark.parametrize(
    ("troubles", "stop"),
    [
        ([end_lease, quit_now, cancel], Stop.LEASE),
        ([cancel, quit_now], Stop.QUIT),
        ([end_lease], Stop.LEASE),
        ([cancel], Stop.CANCEL),
    ],
)
def test_the_lease_takes_precedence_and_the_deadline_comes_last(
    setting: Setting, troubles: list[Callable[[Setting], None]], stop: Stop
) -> None:
    watch = setting.watch(deadline_s=-1)
    for trouble in troubles:
        trouble(setting)
    assert watch.look() is stop
