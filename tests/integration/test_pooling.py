"""Session poolers and transaction poolers are told apart by what they do, also while others are at work there."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from reproq_prefork.store.steward_store import StewardStore
from tests.support.postgres.pgbouncer import pooler
from tests.support.rows.stores import steward_store
from tests.support.supervisor.supervisor import Connection, add_run
from tests.support.waiting import wait_until

POOL = 4  # connections to the server
ROUNDS = 6


@contextlib.contextmanager
def _others_at_work(url: str, count: int) -> Iterator[None]:
    """So many clients that have a short transaction now and then."""
    stop = threading.Event()

    def work(seed: int) -> None:
        dice = random.Random(seed)
        with psycopg.connect(url, autocommit=True, prepare_threshold=None) as client:
            while not stop.is_set():
                client.execute("select pg_sleep(%s)", [dice.random() * 0.003])
                stop.wait(dice.random() * 0.003)

    threads = [threading.Thread(target=work, args=[number]) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _open_all_of(url: str) -> None:
    """Have the pooler open as many connections to the server as it may."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(psycopg.connect(url, prepare_threshold=None)) for _ in range(POOL)]
        for client in clients:
            client.execute("select 1")  # and its transaction stays open
        for client in clients:
            client.commit()


def _heard(steward: StewardStore, connection: Connection) -> bool:
    steward.await_new_runs()
    add_run(connection, {})
    try:
        wait_until(lambda: steward.news().queues, 2, "the message")
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize("others", [0, 3])
def test_behind_a_session_pooler_notifications_are_received(
    database_url: str, connection: Connection, others: int
) -> None:
    with pooler(database_url, connections=2 * POOL, mode="session") as url, _others_at_work(url, others):
        for _ in range(ROUNDS):
            with closing(steward_store(url)) as steward:
                assert steward.backend.pooled
                assert steward.can_listen()
                steward.listen()
                assert _heard(steward, connection)


@pytest.mark.parametrize("takes_turns", [False, True], ids=["last used first", "in turns"])
@pytest.mark.parametrize("mode", ["transaction", "statement"])
@pytest.mark.parametrize("others", [0, 1, 3 * POOL])
def test_behind_a_transaction_pooler_listening_never_seems_to_work(
    database_url: str, connection: Connection, mode: str, others: int, takes_turns: bool
) -> None:
    with (
        pooler(database_url, connections=POOL, mode=mode, takes_turns=takes_turns) as url,
        _others_at_work(url, others),
    ):
        if mode == "transaction":
            _open_all_of(url)
        for _ in range(ROUNDS):
            with closing(steward_store(url)) as steward:
                assert not steward.can_listen()
                assert steward.look([], announces=False) is not None


def test_behind_a_session_pooler_without_a_free_connection_the_steward_polls(
    database_url: str, connection: Connection
) -> None:
    with (
        pooler(database_url, connections=1, mode="session") as url,
        closing(steward_store(url)) as steward,
    ):
        assert not steward.can_listen()
        assert steward.look([], announces=False) is not None


def test_no_server_process_of_a_transaction_pooler_is_left_listening(database_url: str) -> None:
    with pooler(database_url, connections=POOL, takes_turns=True) as url:
        _open_all_of(url)
        for _ in range(3):
            with closing(steward_store(url)) as steward:
                steward.can_listen()
        with contextlib.ExitStack() as stack:
            listening = []
            for _ in range(POOL):  # each keeps one of the pooler's connections
                client = stack.enter_context(psycopg.connect(url, prepare_threshold=None))
                listening += client.execute("select pg_listening_channels()").fetchall()
        assert listening == []
