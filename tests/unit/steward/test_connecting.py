"""How a steward comes by a connection, with a database that is made up."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from reproq_prefork.errors import DatabaseUnavailable, ReproqError
from reproq_prefork.model.identity import HostIdentity
from reproq_prefork.steward.loop import Steward
from reproq_prefork.store.deadline import ServerProcess
from reproq_prefork.store.opening import GoesOn
from reproq_prefork.store.outcomes import ConnectionLost, StatementRefused, ValueRefused
from reproq_prefork.store.steward_store import News, Sight, StewardStore
from reproq_prefork.text.log import Log, LogFormat, LogLevel
from reproq_prefork.unix.channel import Channel
from reproq_prefork.unix.scoreboard import Scoreboard
from reproq_prefork.unix.wake_pipe import WakePipe
from tests.support.fakes.orders import ScriptedOrders
from tests.support.fakes.settings import resolved

ROUNDS = 200  # of the steward's loop, in which what a test waits for must have come


class ScriptedStore:
    """`listen` and `look` meet the troubles that a test has set for this connection, each once."""

    backend = ServerProcess(pid=1, pooled=False)
    was_flooded = False

    def __init__(self, *, listen: ReproqError | None = None, look: ReproqError | None = None) -> None:
        self._troubles = {"listen": listen, "look": look}
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        answers = {
            "can_listen": True,
            "news": News(),
            "look": Sight(False, False, ()),
            "sweep_expired": (),
            "forget_waiters": 0,
            "workers_of_host": (),
        }

        def method(*_arguments: Any, **_options: Any) -> Any:
            self.calls.append(name)
            trouble = self._troubles.pop(name, None)
            if trouble is not None:
                raise trouble
            return answers.get(name)

        return method

    def fileno(self) -> int:
        return self._readable[0]

    @property
    def _readable(self) -> tuple[int, int]:
        # Always readable, so that the loop never sleeps.
        if "pipe" not in self.__dict__:
            self.__dict__["pipe"] = reader, writer = os.pipe()
            os.write(writer, b".")
            return reader, writer
        return cast(tuple[int, int], self.__dict__["pipe"])

    def close_pipe(self) -> None:
        if "pipe" in self.__dict__:
            for fd in self.__dict__["pipe"]:
                os.close(fd)


class CountingOrders(ScriptedOrders):
    """Told to quit once `is_done`, and at the latest after so many rounds."""

    def __init__(self, is_done: Callable[[], bool]) -> None:
        super().__init__()
        self._is_done = is_done
        self._rounds = 0

    def read(self) -> None:
        self._rounds += 1
        self.quit = self.drain = self._rounds > ROUNDS or self._is_done()


class Setting:
    def __init__(self) -> None:
        self.wake = WakePipe()
        self.stores: list[ScriptedStore] = []
        self._fd = os.memfd_create("log")
        self._ours, self._theirs = Channel.pair()

    def run(
        self, connections: list[ScriptedStore | ReproqError], is_done: Callable[[], bool]
    ) -> list[ScriptedStore]:
        """Let a steward work with these connections, one after the other; gives those it has had."""

        def connect(goes_on: GoesOn) -> StewardStore:
            assert goes_on(0.25)
            answer = connections.pop(0)
            if isinstance(answer, ReproqError):
                raise answer
            self.stores.append(answer)
            return cast(StewardStore, answer)

        Steward(
            settings=resolved(environ={"POLL_INTERVAL": "10ms"}).settings,
            index=0,
            scoreboard=Scoreboard(slots=1, stewards=1),
            channel=self._ours,
            orders=CountingOrders(is_done),
            wake=self.wake,
            host=HostIdentity("host", "boot:1"),
            connect=connect,
            log=Log(LogLevel.DEBUG, LogFormat.JSON, fd=self._fd),
        ).run()
        return self.stores

    def messages(self) -> list[str]:
        return [json.loads(line)["message"] for line in os.pread(self._fd, 1 << 20, 0).splitlines()]

    def close(self) -> None:
        for store in self.stores:
            store.close_pipe()
        for fd in (self._fd, *self.wake.fds):
            os.close(fd)
        self._ours.close()
        self._theirs.close()


@pytest.fixture
def setting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Setting]:
    monkeypatch.setattr("reproq_prefork.steward.loop.reconnect_delays_s", lambda: iter([0.0] * 1_000))
    setting = Setting()
    yield setting
    setting.close()


@pytest.mark.parametrize(
    "trouble",
    [
        StatementRefused("cannot execute LISTEN during recovery"),
        ValueRefused("too many notifications in the NOTIFY queue"),
    ],
    ids=lambda trouble: type(trouble).__name__,
)
def test_a_refused_listen_is_tried_again(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, trouble: ReproqError
) -> None:
    monkeypatch.setattr("reproq_prefork.steward.listening.LISTEN_RETRY_S", 0.0)
    store = ScriptedStore(listen=trouble)
    assert setting.run([store], is_done=lambda: store.calls.count("listen") == 2) == [store]
    assert store.calls.count("listen") == 2
    assert "look" in store.calls


def test_a_connection_that_is_lost_by_listening_is_closed_and_replaced(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reproq_prefork.steward.listening.LISTEN_RETRY_S", 0.0)
    lost, found = ScriptedStore(listen=ConnectionLost("gone")), ScriptedStore()
    assert setting.run([lost, found], is_done=lambda: "listen" in found.calls) == [lost, found]
    assert lost.calls[-2:] == ["listen", "close"]
    assert "listen" in found.calls


def test_after_a_lost_connection_every_idle_worker_is_woken_to_check_its_own_connection(
    setting: Setting,
) -> None:
    lost, found = ScriptedStore(look=ConnectionLost("gone")), ScriptedStore()
    setting.run([lost, found], is_done=lambda: "look" in found.calls)
    assert lost.calls[-1] == "close"
    woken = 0
    while setting.wake.take():
        woken += 1
    assert woken == resolved().settings.workers
    assert setting.messages() == ["the connection is lost", "connected again"]


def test_the_first_connection_wakes_nobody(setting: Setting) -> None:
    store = ScriptedStore()
    setting.run([DatabaseUnavailable("here", "it starts"), store], is_done=lambda: "look" in store.calls)
    assert not setting.wake.take()
    assert setting.messages() == ["no connection to the database"]


def test_a_steward_that_is_told_to_quit_while_it_connects_gives_up(setting: Setting) -> None:
    answers = []
    orders = ScriptedOrders()

    def connect(goes_on: GoesOn) -> StewardStore:
        answers.append(goes_on(0.25))
        orders.quit = True
        answers.append(goes_on(0.25))
        raise DatabaseUnavailable("here", "this process was told to stop meanwhile")

    channel, other = Channel.pair()
    Steward(
        settings=resolved().settings,
        index=0,
        scoreboard=Scoreboard(slots=1, stewards=1),
        channel=channel,
        orders=orders,
        wake=setting.wake,
        host=HostIdentity("host", "boot:1"),
        connect=connect,
        log=Log(LogLevel.ERROR, LogFormat.JSON),
    ).run()
    channel.close()
    other.close()
    assert answers == [True, False]
