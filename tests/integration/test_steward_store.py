"""A steward's connection: what is done before each statement, and what others send to it."""

from __future__ import annotations

import itertools
import os
import signal
import time
from contextlib import closing

import psycopg
import pytest

from reproq_prefork.demo.postgres import EmbeddedPostgres
from reproq_prefork.store import inbox
from reproq_prefork.store.connection import connect
from reproq_prefork.store.fetching import fetch
from reproq_prefork.store.inbox import Inbox
from reproq_prefork.store.outcomes import ConnectionLost, StatementRefused
from reproq_prefork.store.steward_store import WAITERS_BATCH, StewardStore
from tests.support.postgres.databases import as_login
from tests.support.rows.stores import HOST, lost_worker, steward_store, worker_store
from tests.support.supervisor.supervisor import Connection, add_run
from tests.support.waiting import wait_until

# It ends no sooner, and the server sends what has been announced before its answer.
HEAR_FIRST = "select 1 as one"


def announce(
    url: str, messages: int, payload: str = "'default' || g", channel: str = "reproq_task_runs"
) -> None:
    with psycopg.connect(url, autocommit=True) as other:
        other.execute(
            f"select pg_notify('{channel}', {payload}) from generate_series(1, {messages}) g".encode()  # noqa: S608
        )


def test_leases_can_be_renewed_before_each_other_statement(
    database_url: str, connection: Connection, steward: StewardStore
) -> None:
    done: list[str] = []
    steward.before_each = lambda: done.append("before")
    with closing(worker_store(database_url, "w")):
        steward.renew_leases(["w"], lease_s=60)
    assert done == []
    for statement in (
        steward.listen,
        steward.stop_listening,
        steward.await_new_runs,
        steward.ignore_new_runs,
        lambda: steward.look(["w"], announces=True),
        lambda: steward.reset_worker(lost_worker("w")),
        lambda: steward.hand_back_waiting("w", 1, 1),
        steward.sweep_expired,
        steward.forget_waiters,
        lambda: steward.workers_of_host(HOST),
        steward.queues_are_drained,
    ):
        done.clear()
        statement()
        assert done, statement


def test_leases_can_be_renewed_while_a_server_process_does_not_end(
    private_server: EmbeddedPostgres,
) -> None:
    moments: list[float] = []
    with (
        psycopg.connect(private_server.url, autocommit=True) as connection,
        closing(steward_store(private_server.url)) as steward,
        closing(worker_store(private_server.url, "w")),
    ):
        steward.before_each = lambda: moments.append(time.monotonic())
        row = connection.execute("select backend_pid from reproq_workers where id = 'w'").fetchone()
        assert row is not None
        os.kill(row[0], signal.SIGSTOP)
        try:
            assert not steward.end_backend_of("w")
        finally:
            os.kill(row[0], signal.SIGCONT)
    assert moments[-1] - moments[0] > 1.0
    assert max(later - sooner for sooner, later in itertools.pairwise(moments)) < 0.5


class TestNews:
    """Notifications are read in bounded steps and kept in bounded memory."""

    def test_of_many_notifications_the_first_are_kept_and_all_are_counted(
        self, database_url: str, steward: StewardStore
    ) -> None:
        steward.listen()
        announce(database_url, 30_000)
        messages = kept = turns = size = 0

        def has_heard_all() -> bool:
            nonlocal messages, kept, turns, size
            news = steward.news()
            assert len(news.queues) <= inbox.MAX_KEPT
            messages, kept, turns = messages + news.messages, kept + len(news.queues), turns + 1
            size += news.payload_bytes
            return messages == 30_000

        wait_until(has_heard_all, 10, "all of them")
        assert size == sum(len(f"default{number}") for number in range(1, 30_001))
        assert turns > 1
        assert 0 < kept < 30_000

    def test_a_notification_that_arrives_before_an_answer_is_kept_too(
        self, database_url: str, steward: StewardStore
    ) -> None:
        steward.listen()
        announce(database_url, 1, "'default'")
        announce(database_url, 1, "'w'", "reproq_cancel")
        steward.queues_are_drained()
        news = steward.news()
        assert (news.queues, set(news.cancelled_at)) == (("default",), {"w"})
        assert steward.news().messages == 0

    def test_a_flood_of_notifications_that_delays_an_answer_loses_the_connection(
        self, database_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with closing(connect(database_url, application_name="a test")) as connection:
            connection.inbox = Inbox(connection.pgconn, patience_s=0.0)
            connection.execute("listen reproq_task_runs")
            announce(database_url, inbox.FLOOD_MESSAGES - 100)
            assert fetch(connection, HEAR_FIRST, {})[0].one == 1
            assert not connection.inbox.is_flooded
            announce(database_url, inbox.FLOOD_MESSAGES + 10_000)
            with pytest.raises(ConnectionLost, match="a flood of notifications"):
                fetch(connection, HEAR_FIRST, {})
            assert connection.inbox.is_flooded

    def test_after_stop_listening_a_steward_gets_no_notifications(
        self, database_url: str, connection: Connection, steward: StewardStore
    ) -> None:
        steward.listen()
        steward.await_new_runs()
        steward.stop_listening()
        announce(database_url, 10)
        steward.queues_are_drained()
        assert steward.news().messages == 0
        assert connection.execute(
            "select count(*) from pg_locks where locktype = 'advisory' and classid = 7238251 "
            "and database = (select oid from pg_database where datname = current_database())"
        ).fetchone() == (0,)


def test_a_steward_does_not_wait_for_the_lock_of_a_queue(database_url: str, connection: Connection) -> None:
    with closing(steward_store(database_url, queues=("mail", "news"))) as steward:
        with psycopg.connect(as_login(database_url, "observer"), autocommit=True) as other:
            other.execute("select pg_advisory_lock(7238251, hashtext('mail'))")
            for _ in range(2):
                assert steward.await_new_runs() == ("mail",)
        wait_until(lambda: not steward.await_new_runs(), 5, "the lock to be had")
        assert steward.await_new_runs() == ()
        held = "select count(*) from pg_locks where classid = 7238251 and mode = 'ShareLock'"
        held += " and database = (select oid from pg_database where datname = current_database())"
        assert connection.execute(held.encode()).fetchone() == (2,)
        steward.ignore_new_runs()
        assert connection.execute(held.encode()).fetchone() == (0,)
        steward.ignore_new_runs()


def test_expired_waiters_are_deleted_in_bounded_steps_except_locked_ones(
    database_url: str, connection: Connection, steward: StewardStore
) -> None:
    run_id = add_run(connection, {})
    connection.execute(
        "insert into reproq_waiters "
        "select %s, 'w' || g, now() - interval '1 minute' from generate_series(1, %s) g",
        [run_id, WAITERS_BATCH + 500],
    )
    with psycopg.connect(database_url) as other:
        other.execute("delete from reproq_waiters where waiter in ('w1', 'w1200')")
        assert [steward.forget_waiters() for _ in range(3)] == [WAITERS_BATCH, 498, 0]
    assert connection.execute("select count(*) from reproq_waiters").fetchone() == (0,)


def test_a_statement_of_a_steward_has_a_time_limit_set_by_its_leases(
    database_url: str, connection: Connection
) -> None:
    store = StewardStore(
        database_url,
        application_name="a test's steward",
        queues=("default",),
        max_attempts_ceiling=None,
        max_lock_wait_s=5,
        max_statement_s=0.3,
    )
    with closing(store), psycopg.connect(database_url) as other:
        other.execute("lock table task_runs in access exclusive mode")
        began = time.monotonic()
        with pytest.raises(StatementRefused):
            store.sweep_expired()
        assert time.monotonic() - began < 1.5
