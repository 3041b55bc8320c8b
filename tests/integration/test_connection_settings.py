"""What each statement of ours is bound by on the server, on a connection of its own and behind a pooler."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from reproq_prefork.store.connection import TimeLimits, connect
from reproq_prefork.store.deadline import DeadlineConnection
from reproq_prefork.store.fetching import fetch, fetch_tuples
from reproq_prefork.store.outcomes import ConnectionLost, StatementRefused, StatementTimedOut
from tests.support.postgres.pgbouncer import pooler
from tests.support.rows.stores import steward_store
from tests.support.supervisor.supervisor import Connection

SETTINGS = """
    select
        current_setting('statement_timeout') as statement_timeout, current_setting('lock_timeout') as lock_timeout,
        current_setting('jit') as jit, current_setting('plan_cache_mode') as plan_cache_mode, %(given)s as given
"""
LIMITS = TimeLimits(statement_s=3.0, lock_s=0.2)


@contextmanager
def connected(url: str) -> Iterator[DeadlineConnection]:
    with closing(connect(url, application_name="a test", limits=LIMITS)) as connection:
        yield connection


@pytest.fixture(params=["a direct connection", "behind a pooler"])
def url(request: pytest.FixtureRequest, database_url: str) -> Iterator[str]:
    if request.param == "behind a pooler":
        with pooler(database_url, connections=1) as url:
            yield url
    else:
        yield database_url


def test_statements_have_time_limits_and_jit_is_off(url: str) -> None:
    with connected(url) as connection:
        (row,) = fetch(connection, SETTINGS, {"given": "50 % of 'it'"})
        assert tuple(row) == ("3s", "200ms", "off", "force_generic_plan", "50 % of 'it'")
        ((pid,),) = fetch_tuples(connection, "backend_pid", {})
        assert (pid != connection.info.backend_pid) == connection.backend.pooled


def test_the_server_cancels_a_statement_that_takes_long_or_waits_for_a_lock(
    url: str, connection: Connection
) -> None:
    with connected(url) as bound, connection.transaction():
        connection.execute("lock table task_runs")
        with pytest.raises(StatementRefused, match="lock timeout"):
            fetch(bound, "select count(*) from task_runs", {})
        with pytest.raises(StatementTimedOut):
            fetch(bound, "select pg_sleep(60)", {})
        assert fetch(bound, "select 1 as one", {})[0].one == 1


def test_no_setting_remains_on_a_pooled_connection(database_url: str) -> None:
    with pooler(database_url, connections=1) as url, connected(url) as connection:
        fetch(connection, SETTINGS, {"given": 1})
        row = connection.execute(SETTINGS, {"given": 1}).fetchone()
        assert row is not None
        assert "3s" not in row
        assert "200ms" not in row


def test_a_poll_notices_that_the_server_has_become_read_only(database_url: str) -> None:
    """A read-only server would always answer that nothing is due."""
    with closing(steward_store(database_url)) as steward:
        steward.look([], announces=False)
        steward._connection.execute("set default_transaction_read_only = on")
        with pytest.raises(ConnectionLost, match="refuses to write"):
            steward.look([], announces=False)


def test_a_session_whose_prepared_statements_were_discarded_is_a_lost_connection(
    database_url: str, connection: Connection
) -> None:
    with connected(database_url) as ours:
        for _ in range(2):
            fetch(ours, "select %(n)s::bigint as n", {"n": 1})
        ours.pgconn.exec_(b"deallocate all")  # by somebody who shares the session
        with pytest.raises(ConnectionLost, match="prepared statement"):
            fetch(ours, "select %(n)s::bigint as n", {"n": 1})


def test_a_column_of_another_type_is_a_lost_connection(database_url: str, connection: Connection) -> None:
    connection.execute("create table changing (n integer)")
    with connected(database_url) as ours:
        for _ in range(2):
            fetch(ours, "select * from changing", {})
        connection.execute("alter table changing alter n type text")
        with pytest.raises(ConnectionLost, match="cached plan"):
            fetch(ours, "select * from changing", {})


@pytest.mark.parametrize("state", ["25006", "57P01", "08006", "26000"])
def test_an_exception_of_a_trigger_is_not_a_lost_connection(
    database_url: str, connection: Connection, state: str
) -> None:
    connection.execute(
        "create function refuse() returns trigger language plpgsql as $$ begin"
        f"  raise exception 'not this one' using errcode = '{state}'; end $$;"
        "create table refusing (n integer);"
        "create trigger refuse before insert on refusing for each row execute function refuse()"
    )
    with connected(database_url) as ours, pytest.raises(StatementRefused, match="not this one"):
        fetch(ours, "insert into refusing values (1)", {})
