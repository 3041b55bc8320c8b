"""What a steward listens to, and when it would rather not."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from reproq_prefork.steward import listening
from reproq_prefork.steward.listening import AwaitNewRuns, Flood, Listening
from reproq_prefork.store.inbox import FLOOD_BYTES, FLOOD_MESSAGES
from reproq_prefork.store.outcomes import StatementRefused
from reproq_prefork.store.steward_store import News
from reproq_prefork.unix.scoreboard import WorkerState
from tests.support.fakes.steward_host import STEWARD, Host

FLOOD = News(messages=FLOOD_MESSAGES)


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Its one entry is the time that `listening` sees."""
    now = [1000.0]
    monkeypatch.setattr(listening, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def logged(host: Host) -> list[Any]:
    os.set_blocking(host.log_reader, False)
    try:
        lines = os.read(host.log_reader, 65536).splitlines()
    except BlockingIOError:
        return []
    return [json.loads(line) for line in lines]


def test_a_flood_differs_from_many_notifications() -> None:
    flood = Flood()
    for second in range(100):
        assert not flood.came(FLOOD_MESSAGES // 2, FLOOD_BYTES // 2, 2.0 * second)
    assert not flood.came(FLOOD_MESSAGES // 2 - 1, 0, 198.5)
    assert flood.came(1, 0, 198.9)
    assert Flood().came(1, FLOOD_BYTES, 0.5)


class TestListening:
    """Listening is paused where it does harm, and begun again."""

    @pytest.fixture
    def awaits(self, host: Host) -> AwaitNewRuns:
        return AwaitNewRuns(host.board, STEWARD, resumed=lambda: None, log=host.log)

    @pytest.fixture
    def hearing(self, host: Host, awaits: AwaitNewRuns, clock: list[float]) -> Listening:
        return Listening(awaits=awaits, log=host.log)

    def test_listen_is_sent_once_on_each_connection(self, host: Host, hearing: Listening) -> None:
        hearing.begin(host.store, 0.0)
        assert host.scripted.asked == []
        for _ in range(2):
            hearing.connected(can_listen=True)
            for _ in range(3):
                hearing.begin(host.store, 0.0)
        assert host.scripted.asked == ["listen", "listen"]

    def test_behind_a_pooler_listen_is_not_sent(
        self, host: Host, hearing: Listening, clock: list[float]
    ) -> None:
        hearing.connected(can_listen=False)
        clock[0] += 3600
        hearing.begin(host.store, 0.0)
        hearing.heard(host.store, FLOOD, 1.0)
        assert host.scripted.asked == []

    def test_a_flood_pauses_listening_and_the_wait_for_new_runs(
        self, host: Host, hearing: Listening, awaits: AwaitNewRuns, clock: list[float]
    ) -> None:
        host.add_worker(0, state=WorkerState.IDLE)
        hearing.connected(can_listen=True)
        hearing.begin(host.store, 0.0)
        awaits.again_if_idle(host.store)
        hearing.heard(host.store, FLOOD, 0.0)
        awaits.again_if_idle(host.store)
        hearing.heard(host.store, FLOOD, 0.0)
        clock[0] += listening.FLOOD_PAUSE_S - 0.1
        hearing.begin(host.store, 0.0)
        assert host.scripted.asked == ["listen", "await", "stop listening"]
        clock[0] += 0.2
        hearing.begin(host.store, 0.0)
        awaits.again_if_idle(host.store)
        assert host.scripted.asked == ["listen", "await", "stop listening", "listen", "await"]

    def test_a_flood_that_broke_the_connection_pauses_listening_on_the_next_one(
        self, host: Host, hearing: Listening, clock: list[float]
    ) -> None:
        hearing.connected(can_listen=True)
        hearing.begin(host.store, 0.0)
        hearing.disconnected(flooded=True)
        hearing.connected(can_listen=True)
        hearing.begin(host.store, 0.0)
        assert host.scripted.asked == ["listen"]
        clock[0] += listening.FLOOD_PAUSE_S
        hearing.begin(host.store, 0.0)
        assert host.scripted.asked == ["listen", "listen"]

    def test_listening_stops_while_the_notification_queue_of_the_server_is_nearly_full(
        self, host: Host, hearing: Listening, clock: list[float]
    ) -> None:
        hearing.connected(can_listen=True)
        hearing.begin(host.store, 0.3)
        clock[0] += listening.FLOOD_PAUSE_S
        hearing.begin(host.store, 0.1)
        hearing.heard(host.store, News(), 0.4)
        assert host.scripted.asked == ["listen"]
        hearing.heard(host.store, News(), 0.6)
        assert host.scripted.asked == ["listen", "stop listening"]

    def test_a_refused_listen_is_tried_again(
        self, host: Host, hearing: Listening, clock: list[float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse() -> None:
            host.scripted.asked.append("refused")
            raise StatementRefused("not now")

        hearing.connected(can_listen=True)
        with monkeypatch.context() as patched:
            patched.setattr(host.scripted, "listen", refuse)
            with pytest.raises(StatementRefused):
                hearing.begin(host.store, 0.0)
            hearing.begin(host.store, 0.0)
            assert host.scripted.asked == ["refused"]
        clock[0] += listening.LISTEN_RETRY_S
        hearing.begin(host.store, 0.0)
        with monkeypatch.context() as patched:
            patched.setattr(host.scripted, "stop_listening", refuse)
            with pytest.raises(StatementRefused):
                hearing.heard(host.store, FLOOD, 0.0)
        hearing.heard(host.store, FLOOD, 0.0)
        assert host.scripted.asked == ["refused", "listen", "refused", "stop listening"]

    def test_a_flood_that_goes_on_is_logged_once_a_minute(
        self, host: Host, hearing: Listening, clock: list[float]
    ) -> None:
        hearing.connected(can_listen=True)
        for _ in range(24):
            hearing.begin(host.store, 0.0)
            hearing.heard(host.store, FLOOD, 0.0)
            clock[0] += listening.FLOOD_PAUSE_S
        messages = [line["message"] for line in logged(host)]
        assert messages == ["a flood of notifications: polling meanwhile"] * 2


class TestAwaitNewRuns:
    """Notifications are requested while a worker is idle, until many have come without an idle worker."""

    @pytest.fixture
    def resumed(self) -> list[bool]:
        return []

    @pytest.fixture
    def awaits(self, host: Host, resumed: list[bool]) -> AwaitNewRuns:
        return AwaitNewRuns(host.board, STEWARD, resumed=lambda: resumed.append(True), log=host.log)

    def test_notifications_are_requested_once_a_worker_is_idle(
        self, host: Host, awaits: AwaitNewRuns, resumed: list[bool]
    ) -> None:
        awaits.connected(can_hear=True)
        host.add_worker(0)
        host.add_worker(1, state=WorkerState.IDLE, steward=STEWARD - 1)
        awaits.again_if_idle(host.store)
        assert awaits.is_watching()
        assert host.scripted.asked == []
        host.add_worker(2, state=WorkerState.IDLE)
        for _ in range(2):
            awaits.again_if_idle(host.store)
        assert not awaits.is_watching()
        assert host.scripted.asked == ["await"]
        assert resumed == [True]

    def test_notifications_are_not_requested_behind_a_pooler_or_without_a_connection(
        self, host: Host, awaits: AwaitNewRuns
    ) -> None:
        host.add_worker(0, state=WorkerState.IDLE)
        awaits.again_if_idle(host.store)
        awaits.connected(can_hear=False)
        awaits.again_if_idle(host.store)
        awaits.heard(host.store, 10**6)
        assert not awaits.is_watching()
        assert host.scripted.asked == []

    def test_many_notifications_without_an_idle_worker_end_the_request(
        self, host: Host, awaits: AwaitNewRuns
    ) -> None:
        awaits.connected(can_hear=True)
        host.add_worker(0, state=WorkerState.IDLE)
        awaits.again_if_idle(host.store)
        host.add_worker(0, state=WorkerState.BUSY)
        awaits.heard(host.store, listening.USELESS_MESSAGES - 1)
        host.add_worker(0, state=WorkerState.IDLE)
        awaits.heard(host.store, 1)
        host.add_worker(0, state=WorkerState.SETTLING)
        awaits.heard(host.store, listening.USELESS_MESSAGES - 1)
        assert host.scripted.asked == ["await"]
        awaits.heard(host.store, 1)
        awaits.heard(host.store, 1)
        assert host.scripted.asked == ["await", "ignore"]
        assert awaits.is_watching()
        host.add_worker(0, state=WorkerState.IDLE)
        awaits.again_if_idle(host.store)
        assert host.scripted.asked == ["await", "ignore", "await"]

    def test_a_new_connection_requests_notifications_again(self, host: Host, awaits: AwaitNewRuns) -> None:
        host.add_worker(0, state=WorkerState.IDLE)
        for _ in range(2):
            awaits.connected(can_hear=True)
            awaits.again_if_idle(host.store)
        assert host.scripted.asked == ["await", "await"]

    def test_a_request_does_not_wait_for_a_held_lock(
        self, host: Host, awaits: AwaitNewRuns, resumed: list[bool], clock: list[float]
    ) -> None:
        host.scripted.locked = ("default",)
        host.add_worker(0, state=WorkerState.IDLE)
        awaits.connected(can_hear=True)
        for _ in range(listening.LOCK_TRIES):
            awaits.again_if_idle(host.store)
            awaits.again_if_idle(host.store)
            clock[0] += listening.IDLE_CHECK_S
        assert host.scripted.asked == ["await"] * listening.LOCK_TRIES
        assert not awaits.is_watching()
        assert [line["queues"] for line in logged(host)] == ["default"]
        clock[0] += listening.LOCK_RETRY_S
        host.scripted.locked = ()
        awaits.again_if_idle(host.store)
        clock[0] += listening.LOCK_RETRY_S
        awaits.again_if_idle(host.store)
        assert host.scripted.asked == ["await"] * (listening.LOCK_TRIES + 1)
        assert resumed == [True]
