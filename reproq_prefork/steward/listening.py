"""When a steward listens for notifications. They make things fast, but nothing depends on them.

Any login may send them, and may take the advisory locks by which stewards ask for new runs. So a steward does not
listen during a flood of notifications, and does not wait for a lock that somebody keeps. Polls find what it
misses.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from reproq_prefork.steward.workers import workers_of
from reproq_prefork.store.inbox import FLOOD_BYTES, FLOOD_MESSAGES
from reproq_prefork.store.steward_store import News, StewardStore
from reproq_prefork.text.log import Log
from reproq_prefork.unix.scoreboard import Scoreboard, WorkerState

IDLE_CHECK_S = 0.02  # between two looks at the scoreboard, without a statement
USELESS_MESSAGES = 50  # in a row; stopping them costs two statements, so it must save more than that
LOCK_TRIES = 5  # a producer that asks holds the lock for microseconds
LOCK_RETRY_S = 1.0  # after that many tries: somebody keeps the lock

# FLOOD_MESSAGES or FLOOD_BYTES within a second are a flood. A transaction sends one message for each queue, so
# even producers that commit each run separately stay far below this.
FLOOD_WINDOW_S = 1.0
FLOOD_PAUSE_S = 5.0
LISTEN_RETRY_S = 1.0
# Shares of the server's notification queue. If it is full, each NOTIFY fails, and LISTEN reads all that is in it.
FULL_SHARE, EMPTY_SHARE = 0.5, 0.25

LOG_INTERVAL_S = 60.0


class Occasionally:
    """Writes a warning that may repeat at each turn at most once a minute."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._silent_until = 0.0

    def warn(self, message: str, **fields: object) -> None:
        now = time.monotonic()
        if now >= self._silent_until:
            self._silent_until = now + LOG_INTERVAL_S
            self._log.warning(message, **fields)


class Flood:
    """Decides whether many notifications are a flood. Pure: it sees only how many came and when."""

    def __init__(self) -> None:
        self._since = 0.0
        self._messages = self._bytes = 0

    def came(self, messages: int, payload_bytes: int, now: float) -> bool:
        """Note what came until `now`, in monotonic seconds. Returns whether it is a flood."""
        if now - self._since > FLOOD_WINDOW_S:
            self._since, self._messages, self._bytes = now, 0, 0
        self._messages += messages
        self._bytes += payload_bytes
        return self._messages >= FLOOD_MESSAGES or self._bytes >= FLOOD_BYTES


class Listening:
    """Listens on a steward's connection when that is useful, and pauses when it does harm."""

    def __init__(self, *, awaits: AwaitNewRuns, log: Log) -> None:
        self._awaits = awaits
        self._warnings = Occasionally(log)
        self._flood = Flood()
        self._listens = False
        self._listen_at: float | None = None  # None: never, on this connection

    def connected(self, *, can_listen: bool) -> None:
        """Begin on a new connection. `can_listen` False: behind a pooler, no notification would ever arrive."""
        self._listens = False
        self._awaits.connected(can_hear=False)
        if not can_listen:
            self._listen_at = None
        elif self._listen_at is None:
            self._listen_at = 0.0

    def disconnected(self, *, flooded: bool) -> None:
        """The connection is lost. `flooded`: because notifications kept an answer from arriving."""
        self.connected(can_listen=True)
        if flooded:
            self._pause("a flood of notifications: polling meanwhile")

    def begin(self, store: StewardStore, announced_share: float) -> None:
        """Listen, if it is time. `announced_share`: which share of the server's notification queue is in use."""
        if self._listens or self._listen_at is None or time.monotonic() < self._listen_at:
            return
        if announced_share > EMPTY_SHARE:
            self._pause(
                "the server's queue of notifications is nearly full: polling meanwhile", share=announced_share
            )
            return
        self._listen_at = time.monotonic() + LISTEN_RETRY_S  # in case the server refuses it
        store.listen()
        self._flood = Flood()
        self._listens, self._listen_at = True, 0.0
        self._awaits.connected(can_hear=True)

    def heard(self, store: StewardStore, news: News, announced_share: float) -> None:
        """Stop listening if a flood has come."""
        if not self._listens:
            return
        if self._flood.came(news.messages, news.payload_bytes, time.monotonic()):
            self._end(store, "a flood of notifications: polling meanwhile", messages=news.messages)
        elif announced_share > FULL_SHARE:
            self._end(
                store,
                "the server's queue of notifications is nearly full: polling meanwhile",
                share=announced_share,
            )

    def _end(self, store: StewardStore, why: str, **fields: object) -> None:
        self._pause(why, **fields)
        self._awaits.connected(can_hear=False)
        store.stop_listening()
        self._listens = False  # last: if the server refuses the statement, it is tried again

    def _pause(self, why: str, **fields: object) -> None:
        self._listen_at = time.monotonic() + FLOOD_PAUSE_S
        self._warnings.warn(why, **fields)


class AwaitNewRuns:
    """Asks for a NOTIFY about new runs, except while all workers of the host are busy: they claim again anyway.

    NOTIFY takes a lock of the whole server until its commit is on disk, so eight producers are half as fast with
    it. So after some messages that found no idle worker, this host asks for no more, until it sees an idle worker
    again. A run that is inserted before that and committed after it sends no NOTIFY, hence the frequent polls
    then.
    """

    def __init__(
        self, scoreboard: Scoreboard, steward: int, *, resumed: Callable[[], None], log: Log
    ) -> None:
        self._scoreboard = scoreboard
        self._steward = steward
        self._resumed = resumed
        self._warnings = Occasionally(log)
        self._can_hear = False
        self._awaits = False
        self._useless = 0
        self._refusals = 0  # in a row
        self._retry_at: float | None = None  # for queues whose lock somebody keeps

    def connected(self, *, can_hear: bool) -> None:
        """A connection is new, or starts or stops to listen: the steward has not asked for messages on it yet.

        `can_hear` False: it receives no messages.
        """
        self._can_hear, self._awaits, self._retry_at, self._refusals = can_hear, False, None, 0

    def is_watching(self) -> bool:
        """Whether `again_if_idle` waits for a worker to become idle, and must be called often."""
        return self._can_hear and (not self._awaits or 0 < self._refusals < LOCK_TRIES)

    def again_if_idle(self, store: StewardStore) -> None:
        if not self._can_hear:
            return
        if self._awaits:
            if self._retry_at is not None and time.monotonic() >= self._retry_at:
                self._ask(store)
        elif self._is_one_idle():
            self._ask(store)
            self._awaits, self._useless = True, 0
            self._resumed()

    def _ask(self, store: StewardStore) -> None:
        self._note_refusals(store.await_new_runs())

    def _note_refusals(self, missing: Collection[str]) -> None:
        if not missing:
            self._refusals, self._retry_at = 0, None
            return
        self._refusals += 1
        if self._refusals < LOCK_TRIES:
            self._retry_at = time.monotonic() + IDLE_CHECK_S
        else:
            self._retry_at = time.monotonic() + LOCK_RETRY_S
            self._warnings.warn(
                "somebody keeps the advisory locks of queues: their new runs are found by polling",
                queues=",".join(missing),
            )

    def heard(self, store: StewardStore, messages: int) -> None:
        """Note that `messages` have come for the queues of this host."""
        if not self._awaits or not messages:
            return
        self._useless = 0 if self._is_one_idle() else self._useless + messages
        if self._useless >= USELESS_MESSAGES:
            store.ignore_new_runs()
            self._awaits, self._retry_at, self._refusals = False, None, 0

    def _is_one_idle(self) -> bool:
        return any(
            record.state is WorkerState.IDLE
            for record in workers_of(self._scoreboard, self._steward).values()
        )
