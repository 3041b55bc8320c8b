"""What the server does with a new run, whoever inserts it: it is checked, and announced where somebody waits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from reproq_prefork.store.steward_store import StewardStore
from tests.support.rows.stores import steward_store
from tests.support.supervisor.supervisor import Supervisor, add_run, wait_for_status
from tests.support.waiting import wait_until

Connection = psycopg.Connection[Any]

HASH = "0" * 64
INSERT = "insert into task_runs (queue_name, payload, spec_hash) values (%s, '{}', repeat('0', 64))"


class Listener:
    """Hears all that is said of new runs, whoever it is for."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)
        self._connection.execute("listen reproq_task_runs")

    def heard(self) -> list[str]:
        """Since it was asked last. A message of its own comes after all that was committed before."""
        self._connection.execute("notify reproq_task_runs, 'that is all'")
        said: list[str] = []
        for message in self._connection.notifies(timeout=10):
            if message.payload == "that is all":
                return said
            said.append(message.payload)
        raise AssertionError("its own message did not come")

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def listener(database_url: str) -> Iterator[Listener]:
    with closing(Listener(database_url)) as listener:
        yield listener


@pytest.fixture
def steward(database_url: str) -> Iterator[StewardStore]:
    with closing(steward_store(database_url, queues=("mail", "news"))) as steward:
        yield steward


def test_a_notification_during_a_statement_of_the_steward_is_received_after_it(
    steward: StewardStore, connection: Connection
) -> None:
    """psycopg before 3.2.4 drops notifications that arrive together with a reply."""
    steward.listen()
    steward.await_new_runs()
    heard = 0
    for _ in range(20):
        connection.execute(INSERT, ["mail"])
        steward.look([], announces=False)  # its reply comes behind the message
        heard += len(steward.news().queues)
    assert heard == 20


def advisory_locks(connection: Connection) -> int:
    row = connection.execute(
        "select count(*) from pg_locks where locktype = 'advisory' and classid = 7238251 "
        "and database = (select oid from pg_database where datname = current_database())"
    ).fetchone()
    assert row is not None
    return int(row[0])


def copy_rows(connection: Connection, rows: list[tuple[str, str]]) -> None:
    with connection.cursor() as cursor, cursor.copy("copy task_runs (payload, spec_hash) from stdin") as copy:
        for row in rows:
            copy.write_row(row)


def test_runs_of_a_queue_are_notified_while_a_steward_waits_for_them(
    connection: Connection, listener: Listener, steward: StewardStore
) -> None:
    connection.execute(INSERT, ["mail"])
    assert listener.heard() == []
    steward.await_new_runs()
    for name in ("mail", "other", "news"):
        connection.execute(INSERT, [name])
    assert listener.heard() == ["mail", "news"]
    steward.ignore_new_runs()
    connection.execute(INSERT, ["mail"])
    assert listener.heard() == []


def test_two_waiting_stewards_are_notified_until_the_last_has_left(
    database_url: str, connection: Connection, listener: Listener, steward: StewardStore
) -> None:
    steward.await_new_runs()
    with closing(steward_store(database_url, queues=("mail",))) as other:
        other.await_new_runs()
        steward.ignore_new_runs()
        connection.execute(INSERT, ["mail"])
        assert listener.heard() == ["mail"]
    wait_until(lambda: advisory_locks(connection) == 0, 10, "the server to end the session")
    connection.execute(INSERT, ["mail"])
    assert listener.heard() == []


def test_a_transaction_with_an_old_snapshot_notifies_a_steward_that_waits_now(
    database_url: str, listener: Listener, steward: StewardStore
) -> None:
    with psycopg.connect(database_url) as old:
        old.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        old.execute("select count(*) from task_runs")
        steward.await_new_runs()
        old.execute(INSERT, ["mail"])
        old.commit()
    assert listener.heard() == ["mail"]


def test_a_producer_keeps_no_lock_and_blocks_no_other_session(
    database_url: str, connection: Connection, steward: StewardStore
) -> None:
    with psycopg.connect(database_url) as slow:
        slow.execute(INSERT, ["mail"])
        assert advisory_locks(connection) == 0
        connection.execute("set lock_timeout = '1s'")
        connection.execute(INSERT, ["mail"])
        steward.await_new_runs()
        assert advisory_locks(connection) == 2


def test_a_role_that_may_only_insert_can_enqueue(connection: Connection, steward: StewardStore) -> None:
    steward.await_new_runs()
    name = f"producer_{connection.info.backend_pid}"
    connection.execute(f"create role {name}".encode())
    try:
        connection.execute(f"grant insert on task_runs to {name}".encode())
        connection.execute(f"set role {name}".encode())
        connection.execute(INSERT, ["mail"])
    finally:
        connection.execute("reset role")
        connection.execute(f"drop owned by {name}".encode())
        connection.execute(f"drop role {name}".encode())


@pytest.mark.parametrize(
    ("payload", "spec_hash", "column"),
    [
        ("{}", "0" * 63, "spec_hash"),
        ("{}", "0" * 65, "spec_hash"),
        ("{}", "A" * 64, "spec_hash"),
        ("{}", "0" * 32 + "g" + "0" * 31, "spec_hash"),
        ("{}", "0" * 63 + "\n", "spec_hash"),
        ("{}", "é" * 32, "spec_hash"),
        (f'"{"x" * 1048576}"', HASH, "payload"),
        ("[" + ",".join(["1e131071"] * 9) + "]", HASH, "payload"),
    ],
)
def test_one_invalid_run_refuses_the_whole_statement(
    connection: Connection, payload: str, spec_hash: str, column: str
) -> None:
    rows = [("{}", HASH), (payload, spec_hash), ("{}", HASH)]
    values = [value for row in rows for value in row]
    with pytest.raises(psycopg.errors.CheckViolation) as refused:
        connection.execute(
            "insert into task_runs (payload, spec_hash) values (%s, %s), (%s, %s), (%s, %s)", values
        )
    assert (refused.value.diag.table_name, refused.value.diag.column_name) == ("task_runs", column)
    with pytest.raises(psycopg.errors.CheckViolation):
        copy_rows(connection, rows)
    assert connection.execute("select count(*) from task_runs").fetchone() == (0,)


def test_a_host_is_notified_only_while_it_has_an_idle_worker(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    with Supervisor(database_url, tmp_path, workers=1, environ={"POLL_INTERVAL": "3600s"}):
        wait_until(lambda: advisory_locks(connection) == 1, 20, "the steward to await new runs")
        long = add_run(connection, {"sleep": 3}, priority=1)
        wait_for_status(connection, long, "RUNNING")
        with psycopg.connect(database_url) as slow:
            for _ in range(200):
                add_run(connection, {}, run_after="2100-01-01")  # nobody is told of these
                if advisory_locks(connection) == 0:
                    break
                connection.execute("notify reproq_task_runs, 'default'")
            wait_until(lambda: advisory_locks(connection) == 0, 10, "the steward to have heard enough")
            unannounced = add_run(slow, {})
            wait_for_status(connection, long, "SUCCESSFUL")
            wait_until(lambda: advisory_locks(connection) == 1, 10, "the steward to await new runs again")
            slow.commit()
        wait_for_status(connection, unannounced, "SUCCESSFUL")
        wait_for_status(connection, add_run(connection, {}), "SUCCESSFUL")
